// HEAD (SPEC.md section 4).

import { require } from "./errors.js";
import { concat, encodeUtf8, Fields } from "./fields.js";
import {
  MAX_FRAMES, MAX_TIME, MAX_TIME_BASE, MOTION_CHANNELS, PLACEMENT_CHANNELS, READS,
} from "./limits.js";
import { defaultModel, unpackModel } from "./motion.js";
import { packMap, unpackMap } from "./msgpack.js";

export const isInteger = (value, least, most) =>
  typeof value === "number" && value >= least && value <= most;
export const isText = (value, least, most) => {
  if (typeof value !== "string") return false;
  const size = encodeUtf8(value).length;
  return size >= least && size <= most;
};
export const isBytes = (value, size) => value instanceof Uint8Array && value.length === size;
export const isIntegers = (value, bounds) =>
  Array.isArray(value) &&
  value.length === bounds.length &&
  value.every((item, at) => isInteger(item, ...bounds[at]));

const BASE = [1, MAX_TIME_BASE];
const SIDE = [1, 2 ** 16];
const FIELDS = new Map([
  ["bundle", (v) => isText(v, 1, 64)],
  ["decoder", (v) => isBytes(v, 32)],
  ["encoder", (v) => isText(v, 0, 64)],
  ["frames", (v) => isInteger(v, 0, MAX_FRAMES)],
  ["model", (v) => v instanceof Uint8Array],
  ["placement", (v) => isBytes(v, 4 * PLACEMENT_CHANNELS)],
  ["rate", (v) => isIntegers(v, [BASE, BASE, [0, MAX_TIME_BASE], [-MAX_TIME, MAX_TIME]])],
  ["settings", isSettings],
  ["size", (v) => isIntegers(v, [SIDE, [1, 64], [1, 4096]])],
  ["source", (v) => isIntegers(v, [SIDE, SIDE])],
  ["steps", (v) => isBytes(v, 4 * MOTION_CHANNELS)],
  ["upper", (v) => isBytes(v, 32)],
]);
const REQUIRED = ["bundle", "decoder", "rate", "size", "steps"];

function isSettings(value) {
  if (!(value instanceof Map) || value.size > 32) return false;
  return [...value].every((pair) => pair.every((text) => isText(text, 0, 256)));
}

const unpackSteps = (bytes, count) => {
  const fields = new Fields(bytes);
  return Float32Array.from({ length: count }, () => fields.step());
};

/** Return the header of a HEAD payload; `fields` keeps all keys, those of later versions too. */
export function unpackHeader(payload) {
  const start = new Fields(payload);
  const version = [start.u8(), start.u8()];
  const readVersion = [start.u8(), start.u8()];
  const isNewer = readVersion[0] > READS[0] || (readVersion[0] === READS[0] && readVersion[1] > READS[1]);
  const [reads, needs] = [READS.join("."), readVersion.join(".")];
  require(!isNewer, "unsupported-version", `expected a file for readers up to ${reads}, found one for ${needs}`);
  const fields = unpackMap(start.rest());
  for (const key of REQUIRED) require(fields.has(key), "bad-field", `the header has no ${key}`);
  for (const [key, isLegal] of FIELDS) {
    const holds = !fields.has(key) || isLegal(fields.get(key));
    require(holds, "bad-field", `the header's ${key} is out of range or of another type`);
  }
  const [numerator, denominator, frameTicks, startTicks] = fields.get("rate");
  const [resolution, numWs, wDim] = fields.get("size");
  const steps = unpackSteps(fields.get("steps"), MOTION_CHANNELS);
  const model = fields.has("model") ? unpackModel(fields.get("model")) : defaultModel();
  const placement = fields.get("placement");
  return {
    version,
    readVersion,
    fields,
    bundle: fields.get("bundle"),
    decoderId: fields.get("decoder"),
    upperId: fields.get("upper") ?? null,
    encoder: fields.get("encoder") ?? "",
    settings: fields.get("settings") ?? new Map(),
    resolution,
    numWs,
    wDim,
    /** Quantizer steps of the 34 values. */
    steps,
    /** Seconds a tick, as a fraction. */
    timeBase: [numerator, denominator],
    /** Ticks a frame; 0: each group has time stamps. */
    frameTicks,
    startTicks,
    /** Frames in the file; null while unknown. */
    frames: fields.get("frames") ?? null,
    sourceSize: fields.get("source") ?? null,
    placementSteps: placement ? unpackSteps(placement, PLACEMENT_CHANNELS) : null,
    model,
  };
}

/** Return a HEAD payload of fields as `unpackHeader` returns them. */
export function packHeader(fields, readVersion) {
  const payload = concat([Uint8Array.from([...readVersion, ...readVersion]), packMap(fields)]);
  unpackHeader(payload); // one set of checks for both directions
  return payload;
}
