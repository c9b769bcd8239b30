// Synthesis on the processor: convolutions in WebAssembly where it has vectors, else in JavaScript.

import { entriesUpTo, outputGains, packConst, prepare, styledColours } from "./generator.js";
import { wasmConvolution } from "./wasm_convolve.js";

const MOST_MILLISECONDS = 12; // of work between two pauses, in which the page can react
const CHUNK = 4; // floats of a vector

/**
 * Return a renderer: `await render(styles, rung)` returns an ImageData of `rung` pixels.
 *
 * `isPlain` keeps to JavaScript; `isAlone` makes no pauses, in a worker.
 */
export async function create({ channels, weights, isPlain = false, isAlone = false }) {
  const layers = prepare(channels, weights);
  const convolver = (isPlain ? null : await WasmConvolver.of(layers)) ?? new PlainConvolver();
  const most = isAlone ? Infinity : MOST_MILLISECONDS;
  return new Renderer(layers, packConst(weights, channels[0]), convolver, most);
}

class Renderer {
  constructor(layers, input, convolver, most) {
    Object.assign(this, { layers, input, convolver, most });
    this.kind = convolver.kind;
    this.began = 0;
    this.last = Promise.resolve();
  }

  /** One picture at a time: they share memory. */
  render(styles, rung) {
    const drawn = this.last.then(() => this.#render(styles, rung));
    this.last = drawn.catch(() => {});
    return drawn;
  }

  async #render(styles, rung) {
    let x = this.input;
    let image = null;
    this.began = performance.now();
    for (let index = 0; index < entriesUpTo(rung); index++) {
      const layer = this.layers[index];
      if (layer.kind === "torgb") {
        image = addColours(layer, styles[index], x, image);
        await this.#pause();
        continue;
      }
      const isUp = layer.kind === "conv_up";
      const size = isUp ? layer.size / 2 : layer.size;
      const pause = () => this.#pause();
      x = await this.convolver.run(layer, styles[index], x, size, isUp ? 1 : 0.2, pause);
      if (isUp) x = leaky(enlarge(x, layer.outputs / 4, size, 4));
      await this.#pause();
    }
    const bytes = new Uint8ClampedArray(4 * rung * rung);
    for (let p = 0; p < rung * rung; p++) {
      for (let c = 0; c < 3; c++) bytes[4 * p + c] = image[3 * p + c] * 127.5 + 127.5;
      bytes[4 * p + 3] = 255;
    }
    return new ImageData(bytes, rung, rung);
  }

  destroy() {}

  async #pause() {
    if (performance.now() - this.began < this.most) return;
    await new Promise((resume) => setTimeout(resume));
    this.began = performance.now();
  }
}

/** Convolves in WebAssembly; filters, input and output lie in its memory. */
class WasmConvolver {
  kind = "processor (WebAssembly)";

  static async of(layers) {
    const convs = layers.filter((layer) => layer.kind !== "torgb");
    const even = (layer) => 2 * Math.ceil(layer.outputs / 8); // groups, for pairs of them
    const places = new Map();
    let at = 0;
    const take = (floats) => (at += CHUNK * floats * 4) - CHUNK * floats * 4;
    for (const layer of convs) places.set(layer.index, take(even(layer) * (layer.inputs / 4) * 36));
    const sides = convs.map((layer) => (layer.kind === "conv_up" ? layer.size / 2 : layer.size));
    const most = (count) => Math.max(...convs.map(count));
    const input = take(most((layer, n) => (layer.inputs / 4) * (sides[n] + 2) ** 2));
    const output = take(most((layer, n) => even(layer) * sides[n] ** 2));
    const gains = take(most(even));
    const bias = take(most(even));
    const wasm = await wasmConvolution(at);
    return wasm && new WasmConvolver(wasm, convs, places, { input, output, gains, bias });
  }

  constructor({ memory, convolve }, convs, places, areas) {
    Object.assign(this, { memory, convolve, places, areas });
    this.floats = new Float32Array(memory.buffer);
    for (const layer of convs) {
      this.floats.set(layer.filters, places.get(layer.index) / 4);
      layer.filters = null;
    }
  }

  async run(layer, style, x, size, slope, pause) {
    const { floats, areas } = this;
    const { input, output, gains, bias } = areas;
    const inGroups = layer.inputs / 4;
    styleInto(floats, input / 4, x, style, inGroups, size);
    floats.fill(0, gains / 4, gains / 4 + 2 * CHUNK * Math.ceil(layer.outputs / 8));
    floats.set(outputGains(layer, style), gains / 4);
    floats.set(layer.bias, bias / 4);
    for (let group = 0; group < layer.outputs / 4; group += 2) {
      const filters = this.places.get(layer.index) + group * inGroups * 576;
      const to = output + 16 * group * size * size;
      this.convolve(input, filters, to, inGroups, size, gains + 16 * group, bias + 16 * group, slope);
      await pause();
    }
    return floats.slice(output / 4, output / 4 + layer.outputs * size * size);
  }
}

/** Convolves in JavaScript. */
class PlainConvolver {
  kind = "processor";

  async run(layer, style, x, size, slope, pause) {
    const { inputs, outputs, filters, bias } = layer;
    const gains = outputGains(layer, style);
    const padded = new Float32Array(inputs * (size + 2) ** 2);
    styleInto(padded, 0, x, style, inputs / 4, size);
    const out = new Float32Array(outputs * size * size);
    for (let group = 0; group < outputs / 4; group++) {
      for (let y = 0; y < size; y++) {
        convolveRow(padded, filters, inputs / 4, group, size, y, out);
        await pause();
      }
      const from = 4 * group * size * size;
      for (let at = from; at < from + 4 * size * size; at++) {
        const c = 4 * group + (at & 3);
        const v = out[at] * gains[c] + bias[c];
        out[at] = Math.max(v, slope * v);
      }
    }
    return out;
  }
}

/** Write features times a style, with a border of zeros, [groups][size + 2][size + 2] of 4. */
function styleInto(out, start, x, style, groups, size) {
  const wide = size + 2;
  out.fill(0, start, start + 4 * groups * wide * wide);
  for (let group = 0, from = 0; group < groups; group++) {
    const [a, b, c, d] = style.subarray(4 * group, 4 * group + 4);
    for (let y = 0; y < size; y++) {
      let to = start + 4 * ((group * wide + y + 1) * wide + 1);
      for (let n = 0; n < size; n++, from += 4, to += 4) {
        out[to] = x[from] * a;
        out[to + 1] = x[from + 1] * b;
        out[to + 2] = x[from + 2] * c;
        out[to + 3] = x[from + 3] * d;
      }
    }
  }
}

/** Add a row of 4 output channels: two pixels at a time, all inputs. */
function convolveRow(x, filters, inGroups, group, size, y, out) {
  const wide = size + 2;
  const to = 4 * (group * size + y) * size;
  for (let g = 0; g < inGroups; g++) {
    for (let tap = 0; tap < 9; tap++) {
      const f = 16 * ((group * inGroups + g) * 9 + tap);
      const row = 4 * ((g * wide + y + Math.floor(tap / 3)) * wide + (tap % 3));
      const f0 = filters[f], f1 = filters[f + 1], f2 = filters[f + 2], f3 = filters[f + 3];
      const f4 = filters[f + 4], f5 = filters[f + 5], f6 = filters[f + 6], f7 = filters[f + 7];
      const f8 = filters[f + 8], f9 = filters[f + 9], fa = filters[f + 10], fb = filters[f + 11];
      const fc = filters[f + 12], fd = filters[f + 13], fe = filters[f + 14], ff = filters[f + 15];
      for (let at = 0; at < 4 * size; at += 4) {
        const a = x[row + at], b = x[row + at + 1], c = x[row + at + 2], d = x[row + at + 3];
        out[to + at] += a * f0 + b * f4 + c * f8 + d * fc;
        out[to + at + 1] += a * f1 + b * f5 + c * f9 + d * fd;
        out[to + at + 2] += a * f2 + b * f6 + c * fa + d * fe;
        out[to + at + 3] += a * f3 + b * f7 + c * fb + d * ff;
      }
    }
  }
}

/** Return [groups][size][size] vectors of a width at twice the size, bilinear. */
function enlarge(x, groups, size, width) {
  const out = new Float32Array(4 * x.length);
  const side = 2 * size;
  for (let group = 0; group < groups; group++) {
    const base = group * size * size;
    for (let y = 0; y < side; y++) {
      const near = y >> 1;
      const far = Math.min(Math.max(near + 2 * (y & 1) - 1, 0), size - 1);
      for (let n = 0; n < side; n++) {
        const column = n >> 1;
        const beside = Math.min(Math.max(column + 2 * (n & 1) - 1, 0), size - 1);
        const a = width * (base + near * size + column), b = width * (base + near * size + beside);
        const c = width * (base + far * size + column), d = width * (base + far * size + beside);
        const to = width * ((group * side + y) * side + n);
        for (let v = 0; v < width; v++) {
          const upper = 0.75 * x[a + v] + 0.25 * x[b + v];
          out[to + v] = 0.75 * upper + 0.25 * (0.75 * x[c + v] + 0.25 * x[d + v]);
        }
      }
    }
  }
  return out;
}

function leaky(x) {
  for (let at = 0; at < x.length; at++) if (x[at] < 0) x[at] *= 0.2;
  return x;
}

/** Return the picture [size][size][3]: colours of features on the enlarged smaller picture. */
function addColours(layer, style, x, image) {
  const { size, inputs, bias } = layer;
  const colours = styledColours(layer, style);
  const out = image ? enlarge(image, 1, size / 2, 3) : new Float32Array(3 * size * size);
  const area = size * size;
  for (let c = 0; c < 3; c++) {
    for (let p = 0; p < area; p++) out[3 * p + c] += bias[c];
    for (let i = 0; i < inputs; i++) {
      const weight = colours[c * inputs + i];
      const from = 4 * (i >> 2) * area + (i & 3);
      for (let p = 0; p < area; p++) out[3 * p + c] += weight * x[from + 4 * p];
    }
  }
  return out;
}
