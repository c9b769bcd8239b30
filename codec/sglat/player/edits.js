// Edits of files without any network (SPEC.md section 13): other motion, another look.
//
// The results are what `sgl-edit` and `sgl-swap` write: groups that do not change keep their bytes,
// all else is copied, the record of origin tells what was done.

import { Sha256 } from "./bits/checksum.js";
import { isCopied, littleEndian } from "./bits/demux.js";
import { FormatError, MismatchError, require } from "./bits/errors.js";
import { isSameBytes, toHex } from "./bits/fields.js";
import { MAX_INTEGER, MOTION_CHANNELS } from "./bits/limits.js";
import { packFrames, packGroup, unpackGroup } from "./bits/motion.js";
import { edited, swapped } from "./bits/origins.js";
import { Muxer } from "./bits/write.js";
import { open } from "./decoder.js";

const IDENTITY_CHUNKS = ["IDEN", "LAYR", "IREF"];
const LOOK_CHUNKS = [...IDENTITY_CHUNKS, "PLAT", "THMB"];
const BODY_CHUNKS = ["MOTN", "PLAC", "APKT"];
const REWRITTEN = ["HEAD", "INDX", "ENDS"];
const NEUTRAL_BYTES = 2 * MOTION_CHANNELS;

/**
 * Return the integers `[T · 34]` of a file after a change of its values.
 *
 * @param {import("./decoder.js").File} file
 * @param {(values: Float64Array, frame: object) => void} change of one frame's yaw, pitch (degrees) and
 *   controls, in place; what it leaves alone keeps its integer
 */
export function changedMotion(file, change) {
  const out = new Int32Array(file.frameCount * MOTION_CHANNELS);
  const { steps } = file.header;
  let at = 0;
  for (const frames of file.groups()) {
    for (const frame of frames) {
      const values = Float64Array.from(frame.integers, (q, channel) => q * steps[channel]);
      change(values, frame);
      for (let channel = 0; channel < MOTION_CHANNELS; channel++, at++) {
        const q = nearestEven(values[channel] / steps[channel]);
        const isLegal = Math.abs(q) <= MAX_INTEGER;
        require(isLegal, "bad-value", `expected values of at most ${MAX_INTEGER} steps, found ${values[channel]}`);
        out[at] = q;
      }
    }
  }
  return out;
}

/** Round to the nearest integer, halves to the even one, as Python does. */
function nearestEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Return a file with other motion; a damaged one gives a whole file of what is before the damage.
 *
 * @param {import("./decoder.js").File} file
 * @param {Int32Array} integers `[T · 34]` in the file's steps, as many frames as it has
 * @param {{texts?: string[], drives?: Uint8Array[]}} record what was done, one line each, and PROV
 *   payloads of files whose motion was mixed in
 * @returns {Uint8Array}
 */
export function replaceMotion(file, integers, { texts = [], drives = [] } = {}) {
  const expected = file.frameCount * MOTION_CHANNELS;
  require(integers.length === expected, "bad-frames", `expected ${expected} integers, found ${integers.length}`);
  const { header } = file;
  const muxer = new Muxer(fieldsOf(file), header.readVersion);
  const body = bodyStart(file);
  copy(muxer, file.parts.slice(0, body), (type) => type !== "PROV");
  muxer.put("PROV", edited(payloadOf(file, "PROV"), texts, drives, header.encoder || "sglat"));
  const hash = new Sha256();
  for (const part of wholeBody(file, body)) {
    if (part.type !== "MOTN") {
      copy(muxer, [part]);
      continue;
    }
    const group = unpackGroup(part.payload, header);
    const span = [group.first, group.first + group.count].map((frame) => frame * MOTION_CHANNELS);
    const values = integers.subarray(...span);
    hash.update(littleEndian(values));
    const before = file.integersOf(group.first);
    const isSame = values.every((value, at) => value === before[at]);
    const payload = isSame ? part.payload : packGroup({ ...group, stream: packFrames(values, header.model) });
    muxer.putGroup(payload, group);
  }
  return muxer.finish(hash.digest());
}

/**
 * Return a file with the motion of one file and the look of another.
 *
 * @param {import("./decoder.js").File} motion
 * @param {import("./decoder.js").File} look
 * @param {{transfer?: "relative" | "absolute"}} options `relative`: a decoder carries over the
 *   difference from the driver's neutral; `absolute`: the file says that there is none, so that
 *   values count as they are
 * @returns {Uint8Array}
 * @throws {MismatchError} the files are for different weights
 */
export function swap(motion, look, { transfer = "relative" } = {}) {
  checkSameDecoder(motion.header, look.header);
  const fields = fieldsOf(motion).set("size", look.header.fields.get("size"));
  fields.delete("upper");
  if (look.header.upperId) fields.set("upper", look.header.upperId);
  const muxer = new Muxer(fields, later(motion.header.readVersion, look.header.readVersion));
  const lookPreamble = look.parts.slice(0, bodyStart(look));
  copy(muxer, lookPreamble, (type) => LOOK_CHUNKS.includes(type));
  const record = swapped(payloadOf(look, "PROV"), payloadOf(motion, "PROV"));
  if (record) muxer.put("PROV", record);
  const neutral = neutralOf(transfer === "absolute" ? look : motion, transfer === "absolute");
  if (neutral) muxer.put("NEUT", neutral);
  const body = bodyStart(motion);
  const dropped = [...LOOK_CHUNKS, "PROV", "NEUT"];
  copy(muxer, motion.parts.slice(0, body), (type) => !dropped.includes(type));
  const hash = new Sha256();
  for (const part of wholeBody(motion, body)) {
    if (part.type !== "MOTN") {
      copy(muxer, [part]);
      continue;
    }
    const group = unpackGroup(part.payload, motion.header);
    hash.update(littleEndian(motion.integersOf(group.first)));
    muxer.putGroup(part.payload, group);
  }
  return muxer.finish(hash.digest());
}

/** Open what an edit returned: a check of every byte before it is saved. */
export function verified(bytes) {
  const file = open(bytes);
  if (file.damage) throw file.damage;
  return file;
}

/** Raise unless two files are for the same weights. */
function checkSameDecoder(one, other) {
  const isSame = isSameBytes(one.decoderId, other.decoderId) && one.wDim === other.wDim;
  if (isSame) return;
  const name = ({ decoderId, bundle }) => `${toHex(decoderId).slice(0, 16)} (bundle ${bundle})`;
  throw new MismatchError("decoder-mismatch", `expected decoder ${name(one)}, found ${name(other)}`);
}

const later = (a, b) => (a[0] > b[0] || (a[0] === b[0] && a[1] >= b[1]) ? a : b);

/** Return the fields of HEAD for a copy; the count of a damaged file is left out. */
function fieldsOf(file) {
  const fields = new Map(file.header.fields);
  if (file.damage) fields.delete("frames");
  return fields;
}

function payloadOf(file, type) {
  return file.parts.find((part) => part.type === type)?.payload ?? null;
}

/** Return a NEUT payload: of the person whose motion a file has, or of the one it shows. */
function neutralOf(file, isShown) {
  const own = payloadOf(file, "IDEN")?.subarray(0, NEUTRAL_BYTES) ?? null;
  if (!isShown) return payloadOf(file, "NEUT") ?? own;
  if (own === null) throw new FormatError("no-identity", "expected an identity in the file, found a reference");
  return own;
}

/** Return the number of the first part after the preamble. */
function bodyStart(file) {
  const at = file.parts.findIndex(({ type }) => BODY_CHUNKS.includes(type) || type === "INDX" || type === "ENDS");
  return at < 0 ? file.parts.length : at;
}

/** Return the parts after the preamble; of a damaged file without a placement that has no group. */
function wholeBody(file, start) {
  const body = file.parts.slice(start);
  const lastPlace = body.findLastIndex(({ type }) => type === "PLAC");
  const lastGroup = body.findLastIndex(({ type }) => type === "MOTN");
  return body.filter((_, at) => at !== lastPlace || lastPlace < lastGroup);
}

/** Copy parts that edits copy: not the chunks written anew, no unknown bound ones. */
function copy(muxer, parts, wants = () => true) {
  for (const part of parts) {
    const isWanted = !REWRITTEN.includes(part.type) && isCopied(part) && wants(part.type);
    if (isWanted) muxer.put(part.type, part.payload, part.flags);
  }
}
