// Fixed-size numbers, varints, texts and steps of SPEC.md section 1, in both directions.

import { FormatError, require } from "./errors.js";
import { MAX_TIME } from "./limits.js";

// A byte order mark is text like any other here.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();
const MAX_VARINT_BYTES = 9;
const LOW_BYTES = 4; // of a varint: 28 bits, so that bit operations stay within 32
const LOW = 2 ** 28;

/** Return text in UTF-8; raises `bad-encoding`. */
export function decodeUtf8(bytes) {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new FormatError("bad-encoding", "expected UTF-8, found other bytes");
  }
}

export const encodeUtf8 = (text) => encoder.encode(text);

/** Return the value of an IEEE binary16. */
export function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Reads the fields of one payload from front to back; too short a payload raises `code`. */
export class Fields {
  constructor(bytes, code = "bad-field") {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
    this.code = code;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  /** Return the next bytes, not copied. */
  take(size) {
    require(size <= this.left, this.code, `expected ${size} more bytes, found ${this.left}`);
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  rest() {
    return this.take(this.left);
  }

  u8() {
    return this.take(1)[0];
  }

  i8() {
    return (this.u8() << 24) >> 24;
  }

  u32() {
    this.take(4);
    return this.view.getUint32(this.at - 4, true);
  }

  f32() {
    this.take(4);
    return this.view.getFloat32(this.at - 4, true);
  }

  /** Return a positive finite f32; raises `bad-step`. */
  step() {
    const step = this.f32();
    require(step > 0 && step < Infinity, "bad-step", `expected a positive step, found ${step}`);
    return step;
  }

  /** Return finite f16 values; raises `bad-field`. */
  halves(count) {
    const raw = new Fields(this.take(2 * count));
    const values = Float32Array.from({ length: count }, () => halfToNumber(raw.u8() | (raw.u8() << 8)));
    require(values.every(Number.isFinite), "bad-field", "expected finite values, found another");
    return values;
  }

  /** Return a varint as its low 28 and its other 35 bits. */
  _parts() {
    let low = 0;
    let high = 0;
    for (let count = 0; count < MAX_VARINT_BYTES; count++) {
      require(this.left > 0, "bad-varint", "a varint runs past the end of its payload");
      const byte = this.bytes[this.at++];
      if (count < LOW_BYTES) low += (byte & 127) * 2 ** (7 * count);
      else high += (byte & 127) * 2 ** (7 * (count - LOW_BYTES));
      if (byte < 128) {
        require(byte || !count, "bad-varint", "a varint is not in its shortest form");
        return [low, high];
      }
    }
    throw new FormatError("bad-varint", "a varint is longer than 9 bytes");
  }

  /** Return an unsigned varint; Infinity above 2^53, where no field has a legal value. */
  varint() {
    const [low, high] = this._parts();
    const isExact = high < MAX_TIME / LOW || (high === MAX_TIME / LOW && low === 0);
    return isExact ? high * LOW + low : Infinity;
  }

  /** Return a signed varint; an infinity beyond 2^53. */
  svarint() {
    const [low, high] = this._parts();
    const lowHalf = Math.floor(low / 2);
    const half = high * (LOW / 2) + lowHalf; // exact up to 2^53
    const isAtBound = high === MAX_TIME / (LOW / 2);
    const isBeyond = high > MAX_TIME / (LOW / 2);
    if (low % 2 === 0) return isBeyond || (isAtBound && lowHalf > 0) ? Infinity : half;
    return isBeyond || isAtBound ? -Infinity : -half - 1;
  }

  /** Return a signed varint as a BigInt: differences of time stamps reach 2^54. */
  svarintBig() {
    const [low, high] = this._parts();
    const z = BigInt(high) * BigInt(LOW) + BigInt(low);
    return z & 1n ? -(z >> 1n) - 1n : z >> 1n;
  }

  /** Return text of some number of bytes; raises `code` for another length. */
  text(least, most, code = this.code) {
    const size = this.varint();
    require(size >= least && size <= most, code, `expected a text of ${least} to ${most} bytes, found ${size}`);
    const text = decodeUtf8(this.take(size));
    require(!text.includes("\0"), "bad-encoding", "expected text without U+0000");
    return text;
  }

  end() {
    require(this.left === 0, this.code, `expected the end of a payload, found ${this.left} bytes`);
  }
}

/** Collects the fields of one payload. */
export class Builder {
  constructor() {
    this.parts = [];
  }

  bytes(...parts) {
    for (const part of parts) this.parts.push(Uint8Array.from(part));
    return this;
  }

  u8(value) {
    return this.bytes([value]);
  }

  /** Append an unsigned integer of some bytes, little-endian. */
  unsigned(value, size) {
    const out = new Uint8Array(size);
    for (let at = 0; at < size; at++) {
      out[at] = value % 256;
      value = Math.floor(value / 256);
    }
    return this.bytes(out);
  }

  varint(value) {
    return this._varint(BigInt(value));
  }

  svarint(value) {
    const big = BigInt(value);
    return this._varint(big < 0n ? -2n * big - 1n : 2n * big);
  }

  _varint(value) {
    const out = [];
    for (; value > 127n; value >>= 7n) out.push(Number(value & 127n) | 128);
    out.push(Number(value));
    return this.bytes(out);
  }

  finish() {
    return concat(this.parts);
  }
}

/** Return byte arrays joined. */
export function concat(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Compare byte arrays: negative, 0 or positive as memcmp, shorter first. */
export function compareBytes(a, b) {
  const shared = Math.min(a.length, b.length);
  for (let at = 0; at < shared; at++) if (a[at] !== b[at]) return a[at] - b[at];
  return a.length - b.length;
}

export const isSameBytes = (a, b) => compareBytes(a, b) === 0;

export const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
