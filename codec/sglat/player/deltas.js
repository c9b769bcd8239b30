// Weight deltas of an identity on the generator's weights (SPEC.md 6.2 and 15).

import { MismatchError } from "./bits/errors.js";
import { DENSE, GAIN, LOW_RANK, SPARSE, SPECTRAL } from "./bits/identity.js";

/**
 * Apply deltas in their order; yields after each, so that a page can draw in between.
 *
 * @param {Map<string, Float32Array>} weights changed in place
 * @param {(name: string) => ?number[]} shapeOf shape of any tensor a delta may name, else null
 * @throws {MismatchError} a delta names none, has another shape, or makes a weight that is not finite
 */
export function* applyDeltas(weights, deltas, shapeOf) {
  const changed = new Set();
  for (const delta of deltas) {
    const shape = shapeOf(delta.name);
    if (shape === null || shape.join() !== delta.shape.join()) {
      const found = shape === null ? "none" : `(${shape.join(", ")})`;
      throw new MismatchError(
        "bad-delta", `expected a weight ${delta.name} (${delta.shape.join(", ")}), the generator has ${found}`,
      );
    }
    const weight = weights.get(delta.name);
    if (weight === undefined) continue; // one that no picture depends on
    apply(weight, delta);
    changed.add(delta.name);
    yield;
  }
  for (const name of changed) {
    if (!isAllFinite(weights.get(name))) {
      throw new MismatchError("bad-delta", `weight ${name} is not finite after its deltas`);
    }
  }
}

function isAllFinite(weight) {
  let sum = 0; // a NaN or an infinity times 0 is NaN, and stays
  for (let at = 0; at < weight.length; at++) sum += weight[at] * 0;
  return sum === 0;
}

function apply(weight, delta) {
  const { kind, integers, steps, shape, rank } = delta;
  const row = weight.length / shape[0];
  switch (kind) {
    case GAIN:
      for (let output = 0; output < shape[0]; output++) {
        const factor = Math.fround(1 + Math.fround(integers[output] * steps[0]));
        for (let at = output * row; at < (output + 1) * row; at++) weight[at] *= factor;
      }
      return;
    case DENSE:
      for (let at = 0; at < weight.length; at++) weight[at] += Math.fround(integers[at] * steps[0]);
      return;
    case SPARSE:
      delta.indices.forEach((index, at) => {
        weight[index] += Math.fround(integers[at] * steps[0]);
      });
      return;
    case LOW_RANK:
    case SPECTRAL: {
      const left = Float64Array.from(integers.subarray(0, rank * shape[0]), (q) => Math.fround(q * steps[0]));
      const rest = integers.subarray(rank * shape[0]);
      const right = kind === LOW_RANK
        ? Float64Array.from(rest, (q) => Math.fround(q * steps[1]))
        : filters(rest, delta);
      addProduct(weight, left, right, rank, row);
    }
  }
}

/** Add left^T `[rank, O]` times right `[rank, row]` to a weight `[O, row]`. */
function addProduct(weight, left, right, rank, row) {
  const outputs = weight.length / row;
  const sums = new Float64Array(row);
  for (let output = 0; output < outputs; output++) {
    sums.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = left[r * outputs + output];
      if (factor === 0) continue;
      for (let at = 0, from = r * row; at < row; at++, from++) sums[at] += factor * right[from];
    }
    for (let at = 0; at < row; at++) weight[output * row + at] += Math.fround(sums[at]);
  }
}

const cosine = (n, k, t) => Math.cos((Math.PI * k * (2 * t + 1)) / (2 * n)) * Math.sqrt((k === 0 ? 1 : 2) / n);

/** Return the right factor `[rank, I · h · w]` of a spectrum `[h · w, rank, I]`. */
function filters(spectrum, { shape, rank, steps }) {
  const [, inputs, height, width] = shape;
  const places = height * width;
  const right = new Float64Array(rank * inputs * places);
  const wave = new Float64Array(places);
  for (let frequency = 0; frequency < places; frequency++) {
    const [u, v] = [Math.floor(frequency / width), frequency % width];
    for (let place = 0; place < places; place++) {
      wave[place] = cosine(height, u, Math.floor(place / width)) * cosine(width, v, place % width);
    }
    for (let at = 0; at < rank * inputs; at++) {
      const value = spectrum[frequency * rank * inputs + at] * steps[1 + frequency];
      if (value === 0) continue;
      for (let place = 0; place < places; place++) right[at * places + place] += value * wave[place];
    }
  }
  return right;
}
