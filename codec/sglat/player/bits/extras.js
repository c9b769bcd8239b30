// Audio, pictures, provenance, metadata, index and end (SPEC.md sections 9 to 11).

import { require } from "./errors.js";
import { Builder, Fields } from "./fields.js";
import { isBytes, isInteger, isIntegers, isText } from "./header.js";
import { MAX_PACKETS, MAX_TIME, MAX_TIME_BASE } from "./limits.js";
import { packMap, unpackMap } from "./msgpack.js";

const AUDIO = new Map([
  ["channels", (v) => isInteger(v, 1, 255)],
  ["codec", (v) => isText(v, 1, 32)],
  ["extra", (v) => v instanceof Uint8Array && v.length <= 2 ** 16],
  ["frame", (v) => isInteger(v, 0, 2 ** 31 - 1)],
  ["layout", (v) => isText(v, 0, 64)],
  ["rate", (v) => isInteger(v, 1, 2 ** 31 - 1)],
  ["tb", (v) => isIntegers(v, [[1, MAX_TIME_BASE], [1, MAX_TIME_BASE]])],
]);

/** Return the audio format of an AHDR payload. */
export function unpackAudioFormat(payload) {
  const map = unpackMap(payload);
  for (const [key, isLegal] of AUDIO) {
    require(map.has(key) && isLegal(map.get(key)), "bad-audio", `the audio's ${key} is missing or out of range`);
  }
  return {
    codec: map.get("codec"),
    channels: map.get("channels"),
    sampleRate: map.get("rate"),
    layout: map.get("layout"),
    extra: map.get("extra"),
    frameSize: map.get("frame"),
    timeBase: map.get("tb"),
  };
}

/** Return the packets of an APKT payload: data (not copied), pts, dts, duration, isKey. */
export function unpackPackets(payload) {
  const fields = new Fields(payload, "bad-audio");
  const count = fields.varint();
  require(count >= 1 && count <= MAX_PACKETS, "bad-audio", `expected 1 to ${MAX_PACKETS} packets, found ${count}`);
  let dts = fields.svarint();
  const sizes = unpackColumn(fields, count, 0, payload.length);
  const durations = unpackColumn(fields, count, 0, MAX_TIME);
  const steps = unpackColumn(fields, count, -MAX_TIME, MAX_TIME);
  const shifts = unpackColumn(fields, count, -MAX_TIME, MAX_TIME);
  const keys = unpackColumn(fields, count, 0, 1);
  const size = sizes.reduce((sum, one) => sum + one, 0);
  require(size === fields.left, "bad-audio", `expected ${size} bytes of packets, found ${fields.left}`);
  const packets = [];
  for (let at = 0; at < count; at++) {
    if (at) dts = addTimes(dts, steps[at]);
    require(Math.abs(dts) <= MAX_TIME, "bad-audio", "expected time stamps within 2^53, found a larger one");
    const [data, pts] = [fields.take(sizes[at]), dts + shifts[at]];
    packets.push({ data, pts, dts, duration: durations[at], isKey: keys[at] === 1 });
  }
  return packets;
}

function unpackColumn(fields, count, least, most) {
  const mode = fields.u8();
  require(mode <= 1, "bad-audio", `expected a column of mode 0 or 1, found ${mode}`);
  const values = [];
  for (let at = 0; at < (mode ? count : 1); at++) {
    values.push(fields.svarint());
    const isLegal = values[at] >= least && values[at] <= most;
    require(isLegal, "bad-audio", `expected ${least} to ${most} in a column, found ${values[at]}`);
  }
  return mode ? values : new Array(count).fill(values[0]);
}

/** Return the sum of two time stamps within 2^53; an infinity beyond, where sums are not exact. */
function addTimes(a, b) {
  if (b >= 0) return a > MAX_TIME - b ? Infinity : a + b;
  return a < -MAX_TIME - b ? -Infinity : a + b;
}

/** Return media type and bytes of PLAT or THMB. */
export function unpackPicture(payload) {
  const fields = new Fields(payload, "bad-picture");
  const mediaType = fields.text(1, 64);
  require(fields.left > 0, "bad-picture", "expected a picture, found no bytes");
  return { mediaType, data: fields.rest() };
}

/** Return a PROV payload: who made it, consent, note, hash of the source, and the whole map. */
export function unpackProvenance(payload) {
  const map = unpackMap(payload);
  require(typeof map.get("by") === "string", "bad-field", "expected provenance to say by whom");
  for (const key of ["consent", "note"]) {
    require(typeof (map.get(key) ?? "") === "string", "bad-field", `the provenance's ${key} is not a text`);
  }
  require(!map.has("source") || isBytes(map.get("source"), 32), "bad-field", "the provenance's source is no hash");
  return {
    by: map.get("by"),
    consent: map.get("consent") ?? "",
    note: map.get("note") ?? "",
    source: map.get("source") ?? null,
    map,
  };
}

/** Return a PROV payload of a map; empty texts are left out. */
export function packProvenance(map) {
  const kept = [...map].filter(([key, value]) => key === "by" || !["consent", "note"].includes(key) || value);
  const payload = packMap(new Map(kept));
  unpackProvenance(payload); // one set of checks for both directions
  return payload;
}

/** Return the map of META. */
export function unpackMetadata(payload) {
  const map = unpackMap(payload);
  const isLegal = map.size <= 256 && [...map.values()].every((value) => typeof value === "string");
  require(isLegal, "bad-field", "expected at most 256 texts as metadata, found others");
  return map;
}

/**
 * Compare INDX with what the file has; raises `bad-index`.
 *
 * @param groups found: offset, count, firstTime @param chunks of audio found: offset, firstDts
 */
export function checkIndex(payload, { groups, chunks, hasTimes }) {
  const fields = new Fields(payload, "bad-index");
  const same = (holds, what) => require(holds, "bad-index", `expected the ${what} of this file, found others`);
  const items = (expected, what, check) => {
    const count = fields.varint();
    require(count <= fields.left, "bad-index", `expected items within the chunk, found ${count}`);
    let isSame = count === expected.length;
    let before = { offset: 0, time: 0 };
    for (let at = 0; at < count; at++) {
      isSame = check(expected[at], before) && isSame;
      before = expected[at] ?? before;
    }
    return () => same(isSame, what);
  };
  const step = (item, before) =>
    fields.svarintBig() === BigInt(item?.time ?? 0) - BigInt(before.time);
  const rising = (holds) => require(holds, "bad-index", "expected rising offsets and frames, found others");
  const checkGroups = items(groups, "groups", (item, before) => {
    const [count, gap] = [fields.varint(), fields.varint()];
    const isThen = !hasTimes || step(item, before);
    rising(count >= 1 && gap >= 1);
    return isThen && count === item?.count && gap === item.offset - before.offset;
  });
  const checkChunks = items(chunks, "audio", (item, before) => {
    const gap = fields.varint();
    const isThen = step(item, before);
    rising(gap >= 1);
    return isThen && gap === item?.offset - before.offset;
  });
  fields.end();
  checkGroups();
  checkChunks();
}

/** Return an INDX payload of groups (offset, count, time) and audio chunks (offset, time). */
export function packIndex({ groups, chunks, hasTimes }) {
  const out = new Builder().varint(groups.length);
  let before = { offset: 0, time: 0 };
  for (const item of groups) {
    out.varint(item.count).varint(item.offset - before.offset);
    if (hasTimes) out.svarint(BigInt(item.time) - BigInt(before.time));
    before = item;
  }
  out.varint(chunks.length);
  before = { offset: 0, time: 0 };
  for (const item of chunks) {
    out.varint(item.offset - before.offset).svarint(BigInt(item.time) - BigInt(before.time));
    before = item;
  }
  return out.finish();
}

/** Return position of INDX (0: none), frames and motion hash of ENDS. */
export function unpackEnd(payload) {
  const fields = new Fields(payload);
  const u64 = () => fields.u32() + fields.u32() * 2 ** 32;
  return { index: u64(), frames: u64(), motionSha256: fields.take(32) };
}

/** Return an ENDS payload. */
export function packEnd({ index, frames, motionSha256 }) {
  return new Builder().unsigned(index, 8).unsigned(frames, 8).bytes(motionSha256).finish();
}
