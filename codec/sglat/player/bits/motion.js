// Motion groups and placement (SPEC.md sections 7 and 8), decoded and coded.

import { FormatError, require } from "./errors.js";
import { Builder, Fields } from "./fields.js";
import {
  MAX_FRAMES, MAX_GROUP_FRAMES, MAX_INTEGER, MAX_TIME, MOTION_CHANNELS, PLACEMENT_CHANNELS, SCALES,
} from "./limits.js";
import { StreamReader, StreamWriter, middle, packIntegers, scaleOf, unpackIntegers } from "./rans.js";

const NO_REF = 255;
const FIRST_SCALE = scaleOf(24576);
const STILL_MARGIN = 32;
const TOTAL = 2 ** 15;
const HAS_TIMES = 1;
const HAS_FLAGS = 2;

/** Return the model of a file that stores none: arrays over channels. */
export function defaultModel(channels = MOTION_CHANNELS) {
  return {
    start: new Array(channels).fill(0),
    spread: new Array(channels).fill(16),
    ref: new Array(channels).fill(NO_REF),
    weight: new Array(channels).fill(0),
  };
}

/** Return the `model` field of HEAD (7.2); every fault is `bad-model`. */
export function unpackModel(bytes) {
  const model = { start: [], spread: [], ref: [], weight: [] };
  try {
    const fields = new Fields(bytes);
    for (let c = 0; c < MOTION_CHANNELS; c++) {
      const [start, spread, ref, weight] = [fields.svarint(), fields.u8(), fields.u8(), fields.i8()];
      const isKnown = ref < c || (ref === NO_REF && weight === 0);
      const isLegal = Math.abs(start) <= MAX_INTEGER && spread < SCALES && Math.abs(weight) <= 64;
      require(isKnown && isLegal, "bad-model", `channel ${c} is ${[start, spread, ref, weight]}`);
      model.start.push(start);
      model.spread.push(spread);
      model.ref.push(ref);
      model.weight.push(weight);
    }
    fields.end();
  } catch (error) {
    throw new FormatError("bad-model", error.message);
  }
  return model;
}

/**
 * Run the procedure of 7.3 over a coder, which reads a stream or writes one.
 *
 * Returns the integers `[count, C]`, Int32Array, and whether all are in range.
 */
function runFrames(coder, count, model) {
  const channels = model.start.length;
  const state = new FrameState(model);
  const x = Float64Array.from(model.start);
  const out = new Int32Array(count * channels);
  const still = [1024, 24576];
  let wasStill = 0;
  let isInRange = true;
  for (let t = 0; t < count; t++) {
    if (t === 0) {
      for (let c = 0; c < channels; c++) x[c] += coder.integer(FIRST_SCALE, 0);
    } else {
      const p = Math.min(Math.max(still[wasStill], STILL_MARGIN), TOTAL - STILL_MARGIN);
      const isStill = coder.binary(p);
      if (isStill) still[wasStill] += (TOTAL - still[wasStill]) >> 4;
      else still[wasStill] -= still[wasStill] >> 4;
      wasStill = isStill ? 1 : 0;
      if (!isStill) state.move(coder, x);
    }
    for (let c = 0; c < channels; c++) {
      if (Math.abs(x[c]) > MAX_INTEGER) isInRange = false;
      out[t * channels + c] = x[c];
    }
  }
  return { values: out, isInRange };
}

/** The averages that the frames of a group adapt. */
class FrameState {
  constructor(model) {
    this.model = model;
    this.fast = Int32Array.from(model.spread, middle);
    this.slow = this.fast.slice();
    this.recent = 256;
    this.moved = 0;
    this.d = new Float64Array(model.start.length);
    this.amplitudes = new Int32Array(model.start.length);
  }

  /** Code one moving frame and add its differences to `x`. */
  move(coder, x) {
    const { fast, slow, d, amplitudes, model } = this;
    const channels = d.length;
    let total = 0;
    let expected = 8192;
    let near = 0;
    let far = 0;
    for (let c = 0; c < channels; c++) {
      const ratio = this._ratio(total, expected);
      // Products reach 2^39: Numbers, and division in place of shifts.
      const active = Math.floor(((59 * fast[c] + 101 * slow[c]) * ratio) / 256);
      const sum = 122880 + 14 * fast[c] + 6 * slow[c] + active + (18 * near + 6 * far) * 256;
      const mean = model.ref[c] === NO_REF ? 0 : clampMean(model.weight[c] * d[model.ref[c]]);
      d[c] = coder.integer(scaleOf(Math.min(Math.floor(sum / 256), 65535)), mean);
      const amplitude = Math.min(Math.abs(16 * d[c] - mean), 4095);
      total += amplitude;
      expected += slow[c];
      far = near;
      near = amplitude;
      amplitudes[c] = amplitude;
    }
    this.recent = (256 + this._ratio(total, expected)) >> 1;
    const rate = this.moved < 4 ? 2 : this.moved < 12 ? 3 : this.moved < 28 ? 4 : 5;
    for (let c = 0; c < channels; c++) {
      x[c] += d[c];
      fast[c] += ((amplitudes[c] << 8) - fast[c]) >> 2;
      slow[c] += ((amplitudes[c] << 8) - slow[c]) >> rate;
    }
    this.moved++;
  }

  /** Return this frame's activity so far against what was expected, in 1/256. */
  _ratio(total, expected) {
    return Math.min(Math.floor((total * 65536 + 8192 * this.recent) / expected), 4095);
  }
}

const clampMean = (mean) => Math.min(Math.max(mean, -32768), 32767);

/** Return the integers of a group, `[count, C]`; raises `bad-stream`, `bad-value`. */
export function unpackFrames(bytes, count, model) {
  const stream = new StreamReader(bytes);
  const { values, isInRange } = runFrames(stream, count, model);
  stream.end();
  require(isInRange, "bad-value", `expected integers within ${MAX_INTEGER}, found a larger one`);
  return values;
}

/** Return the stream of a group's integers `[count, C]`; raises `bad-value`. */
export function packFrames(values, model) {
  const channels = model.start.length;
  const isInRange = values.every((value) => Math.abs(value) <= MAX_INTEGER);
  require(isInRange, "bad-value", `expected integers within ${MAX_INTEGER}, found a larger one`);
  const calls = [];
  for (let at = 0; at < values.length; at += channels) {
    const difference = (c) => values[at + c] - (at ? values[at + c - channels] : model.start[c]);
    const d = Array.from({ length: channels }, (_, c) => difference(c));
    const isStill = at > 0 && d.every((step) => step === 0);
    if (at) calls.push(isStill ? 1 : 0);
    if (!isStill) calls.push(...d);
  }
  const stream = new StreamWriter(calls);
  runFrames(stream, values.length / channels, model);
  return stream.finish();
}

function unpackSpan(fields) {
  const first = fields.varint();
  const count = fields.varint();
  const isLegal = count >= 1 && count <= MAX_GROUP_FRAMES && first + count <= MAX_FRAMES;
  require(isLegal, "bad-frames", `expected 1 to ${MAX_GROUP_FRAMES} frames, found ${count} from ${first}`);
  return [first, count];
}

/** Return the time stamp of a frame at a constant rate, in ticks; one beyond 2^53 is only near. */
export function constantTime(header, frame) {
  const ticks = frame * header.frameTicks;
  if (ticks <= MAX_TIME) return header.startTicks + ticks;
  return Number(BigInt(header.startTicks) + BigInt(frame) * BigInt(header.frameTicks));
}

/** Return all of a MOTN payload but its frames: first, count, times, flags (or null), stream. */
export function unpackGroup(payload, header) {
  const fields = new Fields(payload, "bad-group");
  const [first, count] = unpackSpan(fields);
  const form = fields.u8();
  require(form <= 3, "bad-group", `expected a form of 0 to 3, found ${form}`);
  const hasTimes = (form & HAS_TIMES) > 0;
  require(hasTimes === !header.frameTicks, "bad-group", `form ${form} does not fit the header's rate`);
  const flags = form & HAS_FLAGS ? unpackFlags(fields, count) : null;
  const times = hasTimes ? unpackTimes(fields, count) : null;
  if (!hasTimes) {
    const last = BigInt(header.startTicks) + BigInt(first + count - 1) * BigInt(header.frameTicks);
    require(last <= MAX_TIME, "bad-time", "expected time stamps within 2^53, found a later one");
  }
  return { first, count, flags, times, stream: fields.rest() };
}

/** Return a MOTN payload; the reverse of `unpackGroup`. */
export function packGroup({ first, count, flags, times, stream }) {
  const hasFlags = flags !== null && flags.some((flag) => flag);
  const out = new Builder().varint(first).varint(count);
  out.u8((times ? HAS_TIMES : 0) | (hasFlags ? HAS_FLAGS : 0));
  if (hasFlags) packFlags(out, flags);
  if (times) packTimes(out, times);
  return out.bytes(stream).finish();
}

function unpackFlags(fields, count) {
  const flags = new Uint8Array(count);
  const runs = fields.varint();
  require(runs >= 1 && runs <= count, "bad-group", `expected 1 to ${count} runs of flags, found ${runs}`);
  let at = 0;
  for (let run = 0; run < runs; run++) {
    const [skip, length, value] = [fields.varint(), fields.varint(), fields.u8()];
    at += skip;
    const isLegal = length >= 1 && value >= 1 && value <= 3 && at + length <= count;
    require(isLegal, "bad-group", `expected flags inside the group, found ${length} of ${value} from ${at}`);
    flags.fill(value, at, at + length);
    at += length;
  }
  return flags;
}

function packFlags(out, flags) {
  const runs = [];
  let end = 0; // of the run before
  for (let at = 0; at < flags.length; ) {
    let next = at + 1;
    while (next < flags.length && flags[next] === flags[at]) next++;
    if (flags[at]) {
      runs.push([at - end, next - at, flags[at]]);
      end = next;
    }
    at = next;
  }
  out.varint(runs.length);
  for (const [skip, length, value] of runs) out.varint(skip).varint(length).u8(value);
}

function unpackTimes(fields, count) {
  const times = new Float64Array(count);
  times[0] = fields.svarint();
  const second = count > 1 ? unpackIntegers(fields.take(fields.varint()), count - 1) : [];
  require(Math.abs(times[0]) <= MAX_TIME, "bad-time", "expected time stamps within 2^53");
  let delta = 0;
  for (let at = 1; at < count; at++) {
    delta += second[at - 1];
    require(delta >= 1, "bad-time", `expected rising time stamps, found a step of ${delta}`);
    // The difference is exact, the sum beyond 2^53 would not be.
    require(delta <= MAX_TIME - times[at - 1], "bad-time", "expected time stamps within 2^53");
    times[at] = times[at - 1] + delta;
  }
  return times;
}

function packTimes(out, times) {
  out.svarint(times[0]);
  if (times.length === 1) return;
  let before = 0;
  const second = Array.from(times.subarray(1), (time, at) => {
    const delta = time - times[at];
    const change = delta - before;
    before = delta;
    return change;
  });
  const stream = packIntegers(second);
  out.varint(stream.length).bytes(stream);
}

/** Return a PLAC payload's first frame, count and integers `[count, 4]`. */
export function unpackPlacement(payload, header) {
  const hasMeaning = header.placementSteps !== null && header.sourceSize !== null;
  require(hasMeaning, "bad-placement", "expected placement steps and source size in the header");
  const fields = new Fields(payload, "bad-placement");
  const [first, count] = unpackSpan(fields);
  return { first, count, values: unpackFrames(fields.rest(), count, defaultModel(PLACEMENT_CHANNELS)) };
}

/** Return integers · steps, one binary32 multiplication each. */
export function dequantize(values, steps) {
  return Float32Array.from(values, (value, at) => value * steps[at % steps.length]);
}
