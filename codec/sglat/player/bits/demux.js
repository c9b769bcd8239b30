// The container (SPEC.md sections 2, 11 and 12): chunks, their order, and the checks across chunks.

import { FormatError, require } from "./errors.js";
import {
  checkIndex, unpackAudioFormat, unpackEnd, unpackMetadata, unpackPackets, unpackPicture, unpackProvenance,
} from "./extras.js";
import { Fields, isSameBytes } from "./fields.js";
import { unpackHeader } from "./header.js";
import {
  MAX_IDENTITY_INTEGERS, unpackBase, unpackNumberedLayer, unpackReference,
} from "./identity.js";
import { Sha256, crc32c } from "./checksum.js";
import { CHUNKS, EXACT_LENGTH, MOTION_CHANNELS } from "./limits.js";
import { constantTime, unpackFrames, unpackGroup, unpackPlacement } from "./motion.js";

export const SIGNATURE = Uint8Array.of(0x89, 0x53, 0x47, 0x4c, 0x0d, 0x0a, 0x1a, 0x0a);
const HEAD_BYTES = 8;
const CRC_BYTES = 4;
const ANCILLARY = 1;
const BOUND = 2;
const PREAMBLE = new Set(["PLAT", "THMB", "PROV", "NEUT", "META"]);

/** Return the chunk at an offset after every check of section 2 that needs no other chunk. */
export function readChunk(bytes, offset) {
  const short = () => new FormatError("truncated", "the input ends before ENDS", bytes.length);
  if (bytes.length - offset < HEAD_BYTES) throw short();
  const name = bytes.subarray(offset, offset + 4);
  const isName = name.every((c) => (c >= 0x41 && c <= 0x5a) || (c >= 0x30 && c <= 0x39));
  require(isName, "bad-chunk", `expected a chunk type of A-Z and 0-9, found ${[...name]}`, offset);
  const type = String.fromCharCode(...name);
  const flags = bytes[offset + 4];
  const length = bytes[offset + 5] + bytes[offset + 6] * 2 ** 8 + bytes[offset + 7] * 2 ** 16;
  const known = CHUNKS.get(type);
  const isFlags = flags <= 3 && flags !== BOUND && (!known || flags === known[0]);
  require(isFlags, "bad-flags", `flags ${flags} of ${type} are not allowed`, offset);
  require(known || flags & ANCILLARY, "unknown-critical", `chunk ${type} is unknown and may not be skipped`, offset);
  const isLength = !known || (EXACT_LENGTH.has(type) ? length === known[1] : length <= known[1]);
  require(isLength, "bad-length", `${length} bytes in ${type} are not allowed`, offset);
  const end = offset + HEAD_BYTES + length;
  if (end + CRC_BYTES > bytes.length) throw short();
  const crc = new Fields(bytes.subarray(end, end + CRC_BYTES)).u32();
  require(crc32c(bytes.subarray(offset, end)) === crc, "bad-crc", `the checksum of ${type} differs`, offset);
  const payload = bytes.subarray(offset + HEAD_BYTES, end);
  return { type, flags, offset, payload, end: end + CRC_BYTES };
}

/** Whether an edit copies a chunk (section 13). */
export const isCopied = ({ type, flags }) => CHUNKS.has(type) || !(flags & BOUND);

/** Reads one file in memory, chunk by chunk, and raises the first error. */
export class Demuxer {
  /** @param {Uint8Array} bytes the file; raises if its signature or HEAD is wrong */
  constructor(bytes) {
    this.bytes = bytes;
    const isStart = isSameBytes(bytes.subarray(0, SIGNATURE.length), SIGNATURE);
    if (!isStart) {
      const isCut = bytes.length < SIGNATURE.length && isSameBytes(bytes, SIGNATURE.subarray(0, bytes.length));
      const first = [...bytes.subarray(0, SIGNATURE.length)];
      throw new FormatError(isCut ? "truncated" : "bad-signature", `expected the signature, found ${first}`, 0);
    }
    const head = readChunk(bytes, SIGNATURE.length);
    require(head.type === "HEAD", "bad-order", `expected HEAD first, found ${head.type}`, head.offset);
    this.seen = new Set(["HEAD"]);
    this.head = head;
    this.header = located(head.offset, () => unpackHeader(head.payload));
    this.at = head.end;
    this.frames = 0;
    this.layers = 0;
    this.room = MAX_IDENTITY_INTEGERS;
    /** What INDX must say: groups (offset, count, time) and audio chunks (offset, time). */
    this.groups = [];
    this.chunks = [];
    this.lastTime = null;
    this.waiting = null; // a placement before its group
    this.index = 0;
    this.identityHash = new Sha256();
    this.motionHash = new Sha256();
  }

  /** Yield every chunk after HEAD with its content, under the name of `CONTENT`. */
  *events() {
    for (;;) {
      const chunk = readChunk(this.bytes, this.at);
      this._checkOrder(chunk);
      const content = located(chunk.offset, () => CONTENT[chunk.type]?.(this, chunk) ?? {});
      this.seen.add(chunk.type);
      this.at = chunk.end;
      if (chunk.type === "ENDS") {
        const left = this.bytes.length - chunk.end;
        require(left === 0, "trailing-bytes", `expected the end of the file, found ${left} bytes`, chunk.end);
      }
      yield { ...chunk, ...content };
      if (chunk.type === "ENDS") return;
    }
  }

  _checkOrder({ type, offset }) {
    const { seen } = this;
    const isRepeated = CHUNKS.get(type)?.[2] && seen.has(type);
    require(!isRepeated, "duplicate-chunk", `expected one ${type}, found a second`, offset);
    const hasMotion = seen.has("MOTN");
    const hasIdentity = seen.has("IDEN") || seen.has("IREF");
    const isWrong =
      (seen.has("INDX") && type !== "ENDS") ||
      (PREAMBLE.has(type) && hasMotion) ||
      ((type === "IDEN" || type === "IREF") && (hasMotion || hasIdentity)) ||
      (type === "LAYR" && (hasMotion || !seen.has("IDEN"))) ||
      (type === "APKT" && !seen.has("AHDR"));
    require(!isWrong, "bad-order", `${type} must not stand here`, offset);
    const needsIdentity = type === "MOTN" || type === "ENDS";
    require(!needsIdentity || hasIdentity, "no-identity", `expected IDEN or IREF before ${type}`, offset);
  }

  takeBase({ payload }) {
    const base = unpackBase(new Fields(payload), this.header);
    this._countLayer(payload, base.layer);
    return base;
  }

  takeLayer({ payload }) {
    const number = this.layers;
    const layer = unpackNumberedLayer(new Fields(payload), this.header, number, this.room);
    this._countLayer(payload, layer);
    return { number, layer };
  }

  _countLayer(payload, layer) {
    this.layers++;
    this.room -= layer.reduce((sum, entry) => sum + entry.count, 0);
    const size = new Uint8Array(4);
    new DataView(size.buffer).setUint32(0, payload.length, true);
    this.identityHash.update(size).update(payload);
  }

  takeGroup({ payload, offset }) {
    const { header } = this;
    const group = unpackGroup(payload, header);
    const values = unpackFrames(group.stream, group.count, header.model);
    const { first, count, times } = group;
    require(first === this.frames, "bad-frames", `expected a group from frame ${this.frames}, found ${first}`);
    this._usePlacement(first, count);
    const time = times ? times[0] : constantTime(header, first);
    const rises = !times || this.lastTime === null || time > this.lastTime;
    require(rises, "bad-time", `expected a time stamp after ${this.lastTime}, found ${time}`);
    if (times) this.lastTime = times[count - 1];
    this.groups.push({ offset, count, time });
    this.frames += count;
    this.motionHash.update(littleEndian(values));
    return { group: { ...group, values, time } };
  }

  takePlacement({ payload }) {
    const placement = unpackPlacement(payload, this.header);
    this._usePlacement(null, null);
    this.waiting = [placement.first, placement.count];
    return { placement };
  }

  /** Check that a waiting placement belongs to the group that begins; to none with null. */
  _usePlacement(first, count) {
    const isFor = this.waiting === null || (this.waiting[0] === first && this.waiting[1] === count);
    require(isFor, "bad-placement", "expected a placement for the frames of the group that follows");
    this.waiting = null;
  }

  takePackets({ payload, offset }) {
    const packets = unpackPackets(payload);
    this.chunks.push({ offset, time: packets[0].dts });
    return { packets };
  }

  takeIndex({ payload, offset }) {
    this._usePlacement(null, null);
    const { groups, chunks } = this;
    checkIndex(payload, { groups, chunks, hasTimes: !this.header.frameTicks });
    this.index = offset;
    return {};
  }

  takeEnd({ payload }) {
    this._usePlacement(null, null);
    const end = unpackEnd(payload);
    const promised = this.header.frames ?? this.frames;
    const isCount = end.frames === this.frames && promised === this.frames;
    require(isCount, "bad-frames", `expected ${this.frames} frames, found ${end.frames} announced`);
    require(end.index === this.index, "bad-index", `expected INDX at ${this.index}, found ${end.index}`);
    const isMotion = isSameBytes(this.motionHash.digest(), end.motionSha256);
    require(isMotion, "motion-hash", "expected the motion that was written, found another");
    return { end };
  }
}

/** What the chunks of a type give, by type. */
const CONTENT = {
  IDEN: (demuxer, chunk) => demuxer.takeBase(chunk),
  LAYR: (demuxer, chunk) => demuxer.takeLayer(chunk),
  IREF: (_, { payload }) => ({ reference: unpackReference(new Fields(payload)) }),
  MOTN: (demuxer, chunk) => demuxer.takeGroup(chunk),
  PLAC: (demuxer, chunk) => demuxer.takePlacement(chunk),
  AHDR: (_, { payload }) => ({ format: unpackAudioFormat(payload) }),
  APKT: (demuxer, chunk) => demuxer.takePackets(chunk),
  PLAT: (_, { payload }) => ({ picture: unpackPicture(payload) }),
  THMB: (_, { payload }) => ({ picture: unpackPicture(payload) }),
  PROV: (_, { payload }) => ({ provenance: unpackProvenance(payload) }),
  NEUT: (_, { payload }) => ({ neutral: new Fields(payload).halves(MOTION_CHANNELS) }),
  META: (_, { payload }) => ({ metadata: unpackMetadata(payload) }),
  INDX: (demuxer, chunk) => demuxer.takeIndex(chunk),
  ENDS: (demuxer, chunk) => demuxer.takeEnd(chunk),
};

function located(offset, work) {
  try {
    return work();
  } catch (error) {
    throw error instanceof FormatError ? error.at(offset) : error;
  }
}

/** Return integers as i32 little-endian, what the motion hash is taken over (7.4). */
export function littleEndian(values) {
  const out = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, at) => out.setInt32(4 * at, value, true));
  return new Uint8Array(out.buffer);
}

