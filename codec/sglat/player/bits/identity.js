// The identity: IDEN, LAYR, IREF (SPEC.md section 6).

import { FormatError, require } from "./errors.js";
import { MAX_INTEGER, MAX_LAYERS, MOTION_CHANNELS, SCALES } from "./limits.js";
import { unpackIntegers } from "./rans.js";

export const LATENT = 0;
export const LOW_RANK = 1;
export const GAIN = 2;
export const DENSE = 3;
export const SPARSE = 4;
export const SPECTRAL = 5;
export const KIND_NAMES = ["latent", "low rank", "gain", "dense", "sparse", "spectral"];
const MAX_ENTRIES = 4096;
const MAX_SIZE = 2 ** 26; // of a tensor
const MAX_LAYER_INTEGERS = 2 ** 23;
export const MAX_IDENTITY_INTEGERS = 2 ** 24;
const MAX_WAVES = 64;

const product = (shape) => shape.reduce((size, length) => size * length, 1);

/** Return neutral, number of the ID frame (null if unknown) and layer 0 of an IDEN payload. */
export function unpackBase(fields, header) {
  const neutral = fields.halves(MOTION_CHANNELS);
  const number = fields.varint();
  const layer = unpackLayer(fields, header, MAX_IDENTITY_INTEGERS);
  require(layer[0].kind === LATENT, "bad-layer", "expected a latent as layer 0");
  return { neutral, idFrame: number ? number - 1 : null, layer };
}

/** Return the entries of a LAYR payload that must have a number. */
export function unpackNumberedLayer(fields, header, number, room) {
  const found = fields.varint();
  require(found === number, "bad-order", `expected layer ${number}, found ${found}`);
  require(number < MAX_LAYERS, "bad-layer", `expected at most ${MAX_LAYERS} layers, found another`);
  return unpackLayer(fields, header, room);
}

/**
 * Return the entries of a layer body (6.2).
 *
 * An entry has kind, name, shape, size (product of the shape), steps, `integers` (Int32Array, as the
 * steps multiply them) and what its kind needs: rank, indices. `room` bounds the integers.
 */
function unpackLayer(fields, header, room) {
  const count = fields.varint();
  require(count >= 1 && count <= MAX_ENTRIES, "bad-layer", `expected 1 to ${MAX_ENTRIES} entries, found ${count}`);
  const entries = [];
  for (let at = 0; at < count; at++) entries.push(unpackEntry(fields, header));
  const isMixed = count > 1 && entries.some((entry) => entry.kind === LATENT);
  require(!isMixed, "bad-layer", "expected a latent alone in its layer");
  const [power, spread] = [fields.u8(), fields.u8()];
  require(power <= 8 && spread < SCALES, "bad-layer", `2^${power} lanes of spread ${spread} are out of range`);
  const stream = fields.rest();
  const total = entries.reduce((sum, entry) => sum + entry.count, 0);
  const most = Math.min(2 ** 16 + 512 * stream.length, MAX_LAYER_INTEGERS, room);
  require(total <= most, "bad-layer", `expected at most ${most} integers, found ${total}`);
  const integers = unpackIntegers(stream, total, { lanes: 2 ** power, spread });
  let at = 0;
  for (const entry of entries) {
    entry.integers = integers.subarray(at, at + entry.count);
    at += entry.count;
    if (entry.kind === LATENT) predictRows(entry, header.wDim);
    const isInRange = entry.integers.every((value) => Math.abs(value) <= MAX_INTEGER);
    require(isInRange, "bad-value", `expected integers within ${MAX_INTEGER}, found a larger one`);
  }
  return entries;
}

/** Turn residuals of latent rows into integers, in place. */
function predictRows({ integers, rowWeights }, width) {
  for (let at = width; at < integers.length; at++) {
    const weight = rowWeights[Math.floor(at / width)];
    // The row before is within range, the residual within 28 bits.
    const value = integers[at] + ((weight * integers[at - width] + 8) >> 4);
    require(Math.abs(value) <= MAX_INTEGER, "bad-value", `expected integers within ${MAX_INTEGER}, found ${value}`);
    integers[at] = value;
  }
}

function unpackEntry(fields, header) {
  const kind = fields.u8();
  if (kind === LATENT) return unpackLatent(fields, header);
  require(kind <= SPECTRAL, "bad-layer", `kind ${kind} of an entry is unknown`);
  const name = fields.text(1, 128, "bad-layer");
  const axes = fields.u8();
  require(axes >= 1 && axes <= 4, "bad-layer", `expected 1 to 4 axes, found ${axes}`);
  const shape = Array.from({ length: axes }, () => fields.varint());
  const size = product(shape);
  require(size >= 1 && size <= MAX_SIZE, "bad-layer", `shape ${shape} is out of range`);
  const entry = { kind, name, shape, size };
  if (kind === LOW_RANK || kind === SPECTRAL) return unpackFactors(fields, entry);
  if (kind === SPARSE) return unpackSparse(fields, entry);
  return { ...entry, steps: [fields.step()], count: kind === GAIN ? shape[0] : size };
}

function unpackLatent(fields, { numWs, wDim }) {
  const steps = [fields.step()];
  const rowWeights = fields.take(numWs);
  const isLegal = rowWeights[0] === 0 && rowWeights.every((weight) => weight <= 16);
  require(isLegal, "bad-layer", "row weights of a latent are out of range");
  const shape = [numWs, wDim];
  return { kind: LATENT, name: "", shape, size: numWs * wDim, count: numWs * wDim, steps, rowWeights };
}

function unpackFactors(fields, entry) {
  const [outputs, rest] = [entry.shape[0], product(entry.shape.slice(1))];
  const rank = fields.varint();
  const isLegal = rank >= 1 && rank <= Math.min(outputs, rest);
  require(isLegal, "bad-layer", `rank ${rank} does not fit the shape ${entry.shape}`);
  const steps = [fields.step(), fields.step()];
  const count = rank * (outputs + rest);
  if (entry.kind === LOW_RANK) return { ...entry, rank, steps, count };
  const waves = entry.shape[2] * entry.shape[3];
  const hasSpectrum = entry.shape.length === 4 && waves <= MAX_WAVES;
  require(hasSpectrum, "bad-layer", `the shape ${entry.shape} has no spectrum`);
  const shares = Array.from({ length: waves }, () => fields.varint());
  const isShare = shares.every((share) => share >= 1 && share <= 16383);
  require(isShare, "bad-layer", "expected steps of frequencies of 1 to 16383 sixteenths");
  const waveSteps = shares.map((share) => Math.fround(Math.fround(steps[1] * share) / 16));
  return { ...entry, rank, steps: [steps[0], ...waveSteps], count };
}

function unpackSparse(fields, entry) {
  const count = fields.varint();
  const steps = [fields.step()];
  const most = Math.min(entry.size, fields.left);
  require(count >= 1 && count <= most, "bad-layer", `expected 1 to ${most} sparse values, found ${count}`);
  const indices = new Int32Array(count);
  let index = -1;
  for (let at = 0; at < count; at++) {
    index += 1 + fields.varint();
    require(index < entry.size, "bad-layer", `index ${index} is outside the shape ${entry.shape}`);
    indices[at] = index;
  }
  return { ...entry, steps, indices, count };
}

/** Return hash and hint of an IREF payload. */
export function unpackReference(fields) {
  const reference = { sha256: fields.take(32), hint: fields.text(0, 256) };
  fields.end();
  return reference;
}

/** Return the latent minus the generator's mean latent, Float32Array `[numWs · wDim]`. */
export function latentOffset(layers) {
  const latents = layers.filter((layer) => layer[0].kind === LATENT).map((layer) => layer[0]);
  const total = new Float32Array(latents[0].size);
  for (const { integers, steps } of latents) {
    for (let at = 0; at < total.length; at++) total[at] += Math.fround(integers[at] * steps[0]);
  }
  return total;
}

/** Return all weight deltas in the order they are applied. */
export function weightDeltas(layers) {
  return layers.filter((layer) => layer[0].kind !== LATENT).flat();
}

/** Return the resolution in pixels of the generator layer that a weight belongs to (6.4). */
export function weightResolution(name) {
  const place = /^layers\.(\d{1,3})\./.exec(name);
  return place === null ? 4 : 4 * 2 ** Math.floor((Number(place[1]) + 1) / 3);
}

/** Check the hash of a detached identity against a reference; raises `identity-mismatch`. */
export function checkIdentity(reference, sha256) {
  const isSame = reference.sha256.every((byte, at) => byte === sha256[at]);
  if (!isSame) throw new FormatError("identity-mismatch", "expected the identity that the file names, found another");
}
