// The weights that `pack.py` packs: generator, pose flow and controls, and the tables that follow.

import { MismatchError } from "./bits/errors.js";
import { decodeUtf8, halfToNumber } from "./bits/fields.js";

const MAGIC = [0x53, 0x47, 0x4c, 0x57, 0, 1, 0, 0]; // SGLW, version 1

/** Read packed weights. @param {Uint8Array} bytes @returns {Bundle} */
export const weights = (bytes) => new Bundle(bytes);

let halves = null; // all values of binary16

function halfTable() {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToNumber(bits));
  return halves;
}

/** A named set of weights. */
export class Bundle {
  constructor(bytes) {
    if (!MAGIC.every((byte, at) => bytes[at] === byte)) {
      throw new MismatchError("bad-weights", "expected packed weights of version 1, found other bytes");
    }
    const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(MAGIC.length, true);
    const start = MAGIC.length + 4;
    const index = JSON.parse(decodeUtf8(bytes.subarray(start, start + size)));
    this._data = bytes.slice(start + size); // a copy, so that arrays are aligned
    this._tensors = new Map(Object.entries(index.tensors));
    this._unused = new Map(Object.entries(index.unused));
    this.name = index.name;
    /** Hexadecimal: what HEAD's `decoder` and `upper` must be. */
    this.decoderId = index.decoder_id;
    this.upperId = index.upper_id;
    this.licence = index.licence;
    this.resolution = index.generator.resolution;
    this.baseResolution = index.base_resolution;
    this.channels = index.generator.channels;
    this.styleDim = index.generator.style_dim;
    /** `{rows, hidden, steps, style_dim}` */
    this.poseFlow = index.pose_flow;
    /** `{names, groups, sigma, style_widths}`, 32 of each but the last. */
    this.controls = index.controls;
    /** All layers in StyleSpace order. */
    this.styleTable = styleTable(this.channels);
    /** Resolutions that a file may have, ascending. */
    this.rungs = [];
    for (let side = this.baseResolution; side <= this.resolution; side *= 2) this.rungs.push(side);
  }

  /** The layers up to a resolution. */
  tableUpTo(resolution) {
    return this.styleTable.filter((entry) => entry.resolution <= resolution);
  }

  /** Whether there is a tensor. */
  has(name) {
    return this._tensors.has(name);
  }

  /** The shape of a tensor, also of one that is not packed; null without. */
  shape(name) {
    return this._tensors.get(name)?.shape ?? this._unused.get(name) ?? null;
  }

  /** Names of the generator's tensors up to a resolution. */
  generatorNames(resolution) {
    const layers = new Set(this.tableUpTo(resolution).map((entry) => entry.index));
    return [...this._tensors.keys()].filter((name) => {
      const layer = /^layers\.(\d+)\./.exec(name);
      return name === "const" || (layer !== null && layers.has(Number(layer[1])));
    });
  }

  /** Return a new Float32Array of a tensor, row-major. */
  tensor(name) {
    const { type, shape, at, scale_at: scaleAt } = this._tensors.get(name);
    const count = shape.reduce((size, length) => size * length, 1);
    const { buffer } = this._data;
    if (type === "f32") return new Float32Array(buffer, at, count).slice();
    if (type === "f16") {
      const table = halfTable();
      const bits = new Uint16Array(buffer, at, count);
      const out = new Float32Array(count);
      for (let i = 0; i < count; i++) out[i] = table[bits[i]]; // ten times as fast as `from`
      return out;
    }
    const numbers = new Int8Array(buffer, at, count);
    const scale = new Float32Array(buffer, scaleAt, shape[0]);
    const out = new Float32Array(count);
    const row = count / shape[0];
    for (let output = 0; output < shape[0]; output++) {
      const step = scale[output];
      for (let i = output * row; i < (output + 1) * row; i++) out[i] = numbers[i] * step;
    }
    return out;
  }
}

/**
 * Return all layers in StyleSpace order: conv and ToRGB at 4 px, then conv_up, conv, ToRGB each.
 *
 * Weights are stored with unit variance; `weightGain` scales them where they are used.
 */
function styleTable(widths) {
  const table = [];
  const add = (resolution, kind, channels, outputs, wsIndex) => {
    const weightGain = 1 / Math.sqrt(channels * (kind === "torgb" ? 1 : 9));
    table.push({ index: table.length, resolution, kind, channels, outputs, wsIndex, weightGain });
  };
  let before = widths[0];
  widths.forEach((width, level) => {
    const side = 4 * 2 ** level;
    if (level) add(side, "conv_up", before, width, 2 * level - 1);
    add(side, "conv", width, width, 2 * level);
    add(side, "torgb", width, 3, 2 * level + 1);
    before = width;
  });
  return table;
}
