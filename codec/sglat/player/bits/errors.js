// The errors that a damaged or foreign file raises, with the codes of SPEC.md section 14.

/** A file breaks SPEC.md. */
export class FormatError extends Error {
  /**
   * @param {string} code of section 14
   * @param {string} message expected and found, in one line
   * @param {?number} offset place in the file in bytes
   */
  constructor(code, message, offset = null) {
    super(message);
    this.name = "FormatError";
    this.code = code;
    this.offset = offset;
  }

  /** The one line that is shown. */
  toString() {
    const place = this.offset === null ? "" : ` (at byte ${this.offset})`;
    return `${this.code}: ${this.message}${place}`;
  }

  /** The same error at a place, unless it has one. */
  at(offset) {
    this.offset ??= offset;
    return this;
  }
}

/** The loaded weights are not those that a file was made for. */
export class MismatchError extends Error {
  /** @param {string} code `wrong-decoder`, `bad-delta`, ... @param {string} message one line */
  constructor(code, message) {
    super(message);
    this.name = "MismatchError";
    this.code = code;
  }

  toString() {
    return `${this.code}: ${this.message}`;
  }
}

/** Raise unless a claim holds. */
export function require(holds, code, message, offset = null) {
  if (!holds) throw new FormatError(code, message, offset);
}
