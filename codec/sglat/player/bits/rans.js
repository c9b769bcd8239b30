// The entropy coder (SPEC.md section 5): tables, streams, plain integers.
//
// A state stays below 2^40, so that Numbers hold it exactly. `StreamReader` and `StreamWriter` answer
// to the same calls; a procedure of the specification is written once and run with either.

import { FormatError, require } from "./errors.js";
import { SCALES } from "./limits.js";

const TOTAL = 2 ** 15;
const LEAST = 2 ** 24;
const REACH = 20;
const TABLE = 16 * (REACH + 1);
const LOW_ESCAPE = 0;
const HIGH_ESCAPE = 2 * REACH + 2;
const STATE_BYTES = 5;
const MAX_ESCAPE_BYTES = 4;
const THETA = [
  181476666, 250725673, 313605438, 369532315, 441428461, 518858980, 580285511, 629906582,
  688462200, 746405110, 789352154, 822409291, 859785240, 895235379, 920630448, 939710196,
  960826400, 980434429, 994243138, 1004492976, 1015716246, 1026027998, 1033228165, 1038540380,
  1044326105, 1049613821, 1053290223, 1055994433, 1058931828, 1061609278, 1063466861, 1064831155,
  1066311114, 1067658317, 1068591993, 1069277207, 1070020019, 1070695750, 1071163814, 1071507190,
];

/** Return the half tables T of section 5.2; products need 60 bits, so bigint, once. */
function halfTables() {
  const powers = THETA.map((theta) => {
    const row = [2n ** 30n];
    for (let n = 0; n < TABLE; n++) row.push((row[n] * BigInt(theta)) >> 30n);
    return row;
  });
  return Array.from({ length: SCALES }, (_, s) =>
    Int32Array.from(powers[s], (power, n) => {
      const mix = (7n * power + powers[s + 4][n]) >> 3n;
      const scaled = Number((mix * BigInt(TOTAL / 2 - REACH - 2)) >> 30n);
      return scaled + ((TABLE - n) >> 4) + 1;
    }),
  );
}

const HALF = halfTables();
const bounds = new Array(SCALES * 16);

/** Return B[0 .. 2K + 3] of section 5.2, for a phase of -8 to 7. */
function boundaries(scale, phase) {
  const key = scale * 16 + phase + 8;
  if (bounds[key] === undefined) {
    const row = new Int32Array(HIGH_ESCAPE + 2);
    for (let j = 1; j <= HIGH_ESCAPE; j++) {
      const x = 16 * (j - 1 - REACH) - 8 - phase;
      row[j] = x <= 0 ? HALF[scale][-x] : TOTAL - HALF[scale][x];
    }
    row[HIGH_ESCAPE + 1] = TOTAL;
    bounds[key] = row;
  }
  return bounds[key];
}

/** Return the scale index of an expected magnitude in 1/4096 steps (5.4). */
export function scaleOf(magnitude) {
  const m = magnitude < 128 ? 128 : magnitude > 65535 ? 65535 : magnitude;
  const e = 29 - Math.clz32(m); // bit length - 3
  return 4 * (e - 5) + (m >> e) - 4;
}

/** Return the middle of a scale (5.4). */
export const middle = (index) => (9 + 2 * (index & 3)) << (4 + (index >> 2));

/** Decodes one stream of section 5.3. */
export class StreamReader {
  constructor(bytes, lanes = 1) {
    const front = STATE_BYTES * lanes;
    require(bytes.length >= front, "bad-stream", `expected ${front} bytes of states, found ${bytes.length}`);
    this.bytes = bytes;
    this.states = new Float64Array(lanes);
    for (let lane = 0; lane < lanes; lane++) {
      for (let at = STATE_BYTES - 1; at >= 0; at--) {
        this.states[lane] = this.states[lane] * 256 + bytes[STATE_BYTES * lane + at];
      }
      require(this.states[lane] >= LEAST, "bad-stream", "a start state is too small");
    }
    this.front = front;
    this.back = bytes.length;
  }

  /** Read a symbol of two: whether it is the one with start 0 and frequency p. */
  binary(p) {
    const slot = this.states[0] % TOTAL;
    const isFirst = slot < p;
    if (isFirst) this._advance(0, 0, p, slot);
    else this._advance(0, p, TOTAL - p, slot);
    return isFirst;
  }

  /** Read a residual under a scale and a mean in sixteenths of a step. */
  integer(scale, mean, lane = 0) {
    const centre = (mean + 8) >> 4;
    const row = boundaries(scale, mean - 16 * centre);
    const slot = this.states[lane] % TOTAL;
    let symbol = 0;
    let end = HIGH_ESCAPE + 1;
    while (end - symbol > 1) {
      const half = (symbol + end) >> 1;
      if (row[half] <= slot) symbol = half;
      else end = half;
    }
    this._advance(lane, row[symbol], row[symbol + 1] - row[symbol], slot);
    if (symbol === LOW_ESCAPE) return centre - REACH - 1 - this._escape();
    if (symbol === HIGH_ESCAPE) return centre + REACH + 1 + this._escape();
    return centre + symbol - 1 - REACH;
  }

  _advance(lane, start, frequency, slot) {
    const state = this.states[lane];
    let next = frequency * ((state - slot) / TOTAL) + slot - start;
    if (next < LEAST) {
      require(this.front + 2 <= this.back, "bad-stream", "a stream has too few words");
      next = next * 65536 + this.bytes[this.front] + 256 * this.bytes[this.front + 1];
      this.front += 2;
    }
    this.states[lane] = next;
  }

  _escape() {
    let value = 0;
    for (let count = 0; count < MAX_ESCAPE_BYTES; count++) {
      require(this.back > this.front, "bad-stream", "a stream has too few escape bytes");
      const byte = this.bytes[--this.back];
      value |= (byte & 127) << (7 * count);
      if (byte < 128) {
        require(byte || !count, "bad-stream", "an escape is not in its shortest form");
        return value;
      }
    }
    throw new FormatError("bad-stream", "an escape is longer than 4 bytes");
  }

  /** Check that the stream ends where its integers do. */
  end() {
    const isDone = this.front === this.back && this.states.every((state) => state === LEAST);
    require(isDone, "bad-stream", "a stream does not end where its integers do");
  }
}

/** Encodes a stream of one lane: takes its values from a list, in the order of the calls. */
export class StreamWriter {
  /** @param {ArrayLike<number>} values integers, and 1 or 0 for `binary` */
  constructor(values) {
    this.values = values;
    this.at = 0;
    this.symbols = []; // start, frequency, start, frequency, ...
    this.escapes = [];
  }

  binary(p) {
    const isFirst = this.values[this.at++] === 1;
    if (isFirst) this.symbols.push(0, p);
    else this.symbols.push(p, TOTAL - p);
    return isFirst;
  }

  integer(scale, mean) {
    const value = this.values[this.at++];
    const centre = (mean + 8) >> 4;
    const row = boundaries(scale, mean - 16 * centre);
    const residual = value - centre;
    const symbol = Math.min(Math.max(residual + REACH + 1, LOW_ESCAPE), HIGH_ESCAPE);
    this.symbols.push(row[symbol], row[symbol + 1] - row[symbol]);
    if (Math.abs(residual) > REACH) this._escape(Math.abs(residual) - REACH - 1);
    return value;
  }

  _escape(value) {
    require(value < 2 ** 28, "bad-value", `expected an integer of 28 bits, found ${value}`);
    for (; value > 127; value >>>= 7) this.escapes.push((value & 127) | 128);
    this.escapes.push(value);
  }

  /** Return the stream: state, words, escapes backwards. */
  finish() {
    let state = LEAST;
    const words = []; // last byte first
    for (let at = this.symbols.length - 2; at >= 0; at -= 2) {
      const start = this.symbols[at];
      const frequency = this.symbols[at + 1];
      while (state >= frequency * 2 ** 25) {
        words.push((state >>> 8) & 255, state & 255);
        state = Math.floor(state / 65536);
      }
      const rest = state % frequency;
      state = ((state - rest) / frequency) * TOTAL + rest + start;
    }
    const head = [];
    for (let at = 0; at < STATE_BYTES; at++) {
      head.push(state % 256);
      state = Math.floor(state / 256);
    }
    return Uint8Array.from([...head, ...words.reverse(), ...this.escapes.reverse()]);
  }
}

const slowRate = (i) => (i < 4 ? 2 : i < 12 ? 3 : i < 28 ? 4 : i < 60 ? 5 : 7);

/** Run plain integers (5.5) of some lanes over a coder; returns them, `Int32Array`. */
export function plainIntegers(coder, count, lanes, spread) {
  const width = Math.ceil(count / lanes);
  const out = new Int32Array(count);
  const fast = new Int32Array(lanes).fill(middle(spread));
  const slow = fast.slice();
  for (let i = 0; i < width; i++) {
    const rate = slowRate(i);
    for (let lane = 0; lane < lanes; lane++) {
      const position = lane * width + i;
      if (position >= count) break;
      const magnitude = (81920 + 40 * fast[lane] + 208 * slow[lane]) >> 8;
      const value = coder.integer(scaleOf(magnitude), 0, lane);
      const amplitude = Math.min(16 * Math.abs(value), 4095) << 8;
      out[position] = value;
      fast[lane] += (amplitude - fast[lane]) >> 3;
      slow[lane] += (amplitude - slow[lane]) >> rate;
    }
  }
  return out;
}

/** Return the integers of a whole plain stream. */
export function unpackIntegers(bytes, count, { lanes = 1, spread = 16 } = {}) {
  const stream = new StreamReader(bytes, lanes);
  const values = plainIntegers(stream, count, lanes, spread);
  stream.end();
  return values;
}

/** Return a plain stream of one lane and spread 16. */
export function packIntegers(values) {
  const stream = new StreamWriter(values);
  plainIntegers(stream, values.length, 1, 16);
  return stream.finish();
}
