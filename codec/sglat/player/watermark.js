// The invisible watermark of pictures that the page writes; see codec/sglat/marks/watermark.py, whose
// constants and tables `page.py` packs.

import { sha256 } from "./bits/checksum.js";

const RATIO = 12; // of texture to strength

/** Return the identifier that binds pictures of a look to its record of origin. */
export function identifierOf(look, idBytes) {
  const encoder = new TextEncoder();
  const { provenance, identity } = look;
  const parts = [encoder.encode("sglat watermark\0"), identity.sha256];
  if (provenance) {
    const { by, consent, note, source } = provenance;
    for (const text of [by, consent, note]) parts.push(encoder.encode(text), Uint8Array.of(0));
    if (source) parts.push(source);
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return sha256(whole).subarray(0, idBytes);
}

/** Marks pictures with an identifier; a picture depends on its time alone. */
export class Watermark {
  /** @param tables what `page.py` packs @param identifier bytes */
  constructor(tables, identifier) {
    this.tables = tables;
    this.noise = Uint8Array.from(atob(tables.dither), (c) => c.charCodeAt(0));
    Object.assign(this, tileOf(tables, identifier));
    this.tiles = new Map();
  }

  /** Mark an ImageData in place, `seconds` from the start, and return it. */
  mark(picture, seconds) {
    const { width, height, data } = picture;
    const change = this.#change(data, width, height, seconds);
    for (let p = 0; p < change.length; p++) {
      const level = Math.floor(change[p] + (this.noise[p % this.noise.length] + 0.5) / 256);
      for (let c = 4 * p; c < 4 * p + 3; c++) data[c] += level; // clamped
    }
    return picture;
  }

  #change(data, width, height, seconds) {
    const { delays, halfPeriodSeconds, rmsLevels, rmsLevelsLarge } = this.tables;
    const smaller = Math.min(width, height);
    const side = cellPixels(smaller);
    const phase = Math.floor((seconds / halfPeriodSeconds) * delays + 1e-6) % (2 * delays);
    const tile = this.#tile(phase, side);
    const wide = Math.sqrt(tile.length);
    const gain = gainOf(this.tables, data, width, height, side / 16);
    const change = new Float32Array(width * height);
    let sum = 0;
    for (let y = 0, p = 0; y < height; y++) {
      for (let x = 0; x < width; x++, p++) {
        change[p] = tile[(y % wide) * wide + (x % wide)] * gain(x, y);
        sum += change[p] * change[p];
      }
    }
    const wanted = smaller < 256 ? rmsLevels : rmsLevelsLarge;
    const scale = wanted / (Math.sqrt(sum / change.length) + 1e-6);
    for (let p = 0; p < change.length; p++) change[p] *= scale;
    return change;
  }

  /** Return the mark of one tile at a phase, of unit mean square. */
  #tile(phase, side) {
    const key = `${phase} ${side}`;
    if (!this.tiles.has(key)) {
      const { tileCells, delays, softness } = this.tables;
      const wide = tileCells * side;
      const signs = this.signs.map((sign, at) => {
        const turned = (phase - this.delays[at] + 2 * delays) % (2 * delays) < delays;
        return turned ? sign : -sign;
      });
      let tile = Float64Array.from({ length: wide * wide }, (_, p) => {
        const [x, y] = [p % wide, Math.floor(p / wide)];
        return signs[Math.floor(y / side) * tileCells + Math.floor(x / side)];
      });
      const kernel = softKernel(wide, side / softness);
      for (let axis = 0; axis < 2; axis++) tile = turnedFiltered(tile, wide, kernel);
      const rms = Math.sqrt(tile.reduce((sum, v) => sum + v * v, 0) / tile.length);
      this.tiles.set(key, Float32Array.from(tile, (v) => v / rms));
    }
    return this.tiles.get(key);
  }
}

const cellPixels = (smaller) => (smaller < 256 ? 16 : smaller < 768 ? 32 : 64);

/** Return the circular kernel whose spectrum is a Gaussian's, as far as it matters: [offset, weight]. */
function softKernel(wide, sigma) {
  const kernel = [];
  const reach = Math.min(wide / 2 - 1, Math.ceil(8 * sigma));
  for (let x = -reach; x <= reach; x++) {
    let sum = 0;
    for (let f = 0; f < wide; f++) {
      const share = (f < wide / 2 ? f : f - wide) / wide;
      sum += Math.exp(-2 * (Math.PI * sigma * share) ** 2) * Math.cos(2 * Math.PI * share * x);
    }
    kernel.push([x, sum / wide]);
  }
  return kernel;
}

/** Filter rows circularly and return the transpose; twice filters both directions. */
function turnedFiltered(tile, wide, kernel) {
  const out = new Float64Array(tile.length);
  for (let y = 0; y < wide; y++) {
    for (let x = 0; x < wide; x++) {
      let sum = 0;
      for (const [offset, weight] of kernel) sum += weight * tile[y * wide + ((x + offset + wide) % wide)];
      out[x * wide + y] = sum;
    }
  }
  return out;
}

/** Return a function of a place that tells the strength there, more where texture hides it. */
function gainOf({ leastGain, mostGain }, data, width, height, skip) {
  const block = 4;
  const columns = Math.ceil(width / (block * skip));
  const rows = Math.ceil(height / (block * skip));
  const gains = new Float32Array(rows * columns);
  const [lastX, lastY] = [Math.ceil(width / skip) - 1, Math.ceil(height / skip) - 1];
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) {
      let [sum, squares] = [0, 0];
      for (let n = 0; n < block * block; n++) {
        const x = Math.min(column * block + (n % block), lastX) * skip;
        const y = Math.min(row * block + Math.floor(n / block), lastY) * skip;
        const green = data[4 * (y * width + x) + 1];
        sum += green;
        squares += green * green;
      }
      const count = block * block;
      const spread = Math.sqrt(Math.max(squares / count - (sum / count) ** 2, 0));
      gains[at] = Math.min(Math.max(leastGain + spread / RATIO, leastGain), mostGain);
    }
  }
  const pixels = block * skip;
  return (x, y) => gains[Math.floor(y / pixels) * columns + Math.floor(x / pixels)];
}

/** Return sign (0 without a mark) and delay of each cell. */
function tileOf(tables, identifier) {
  const { cells, masks, delays, groupCells, tileCells } = tables;
  const code = encode(tables, pack(tables, identifier));
  const signs = new Array(tileCells * tileCells).fill(0);
  const found = new Array(signs.length).fill(0);
  cells.forEach((group, at) => {
    const symbol = (code[at] ?? 0) ^ masks[at];
    const cell = group[symbol % groupCells];
    signs[cell] = symbol >> 4 ? -1 : 1;
    found[cell] = Math.floor(symbol / groupCells) % delays;
  });
  return { signs, delays: found };
}

/** Return the payload's bits: version, identifier, checksum. */
function pack({ version, versionBits, checkBits, checkPolynomial }, identifier) {
  const number = (value, count) => Array.from({ length: count }, (_, at) => (value >> (count - 1 - at)) & 1);
  const bits = [...number(version, versionBits), ...[...identifier].flatMap((byte) => number(byte, 8))];
  const mask = (1 << checkBits) - 1;
  let state = mask;
  for (const bit of bits) {
    const top = (state >> (checkBits - 1)) ^ bit;
    state = (state << 1) & mask;
    if (top) state ^= checkPolynomial;
  }
  return [...bits, ...number(state, checkBits)];
}

/** Return the symbols of the tail-biting convolutional code. */
function encode({ stepBits, memory, polynomials }, bits) {
  const values = [];
  for (let at = 0; at < bits.length; at += stepBits) {
    values.push(bits.slice(at, at + stepBits).reduce((value, bit) => 2 * value + bit, 0));
  }
  const lead = memory / stepBits;
  const symbols = [];
  let register = 0;
  for (const value of [...values.slice(-lead), ...values]) {
    register = ((register << stepBits) | value) & ((1 << (memory + stepBits)) - 1);
    symbols.push(polynomials.reduce((symbol, taps, at) => symbol | (parity(register & taps) << at), 0));
  }
  return symbols.slice(lead);
}

function parity(value) {
  let odd = 0;
  for (let rest = value; rest; rest >>= 1) odd ^= rest & 1;
  return odd;
}
