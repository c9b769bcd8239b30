// Chunks to a file: muxer, index and end (SPEC.md sections 2 and 11).

import { crc32c } from "./checksum.js";
import { SIGNATURE } from "./demux.js";
import { require } from "./errors.js";
import { packEnd, packIndex } from "./extras.js";
import { Builder, concat, encodeUtf8, Fields } from "./fields.js";
import { packHeader, unpackHeader } from "./header.js";
import { CHUNKS } from "./limits.js";
import { constantTime } from "./motion.js";

/** Return one chunk. */
export function packChunk(type, payload, flags = CHUNKS.get(type)[0]) {
  const most = CHUNKS.get(type)?.[1] ?? 2 ** 24 - 1;
  require(payload.length <= most, "bad-length", `expected at most ${most} bytes in ${type}, found ${payload.length}`);
  const head = new Builder().bytes(encodeUtf8(type)).u8(flags).unsigned(payload.length, 3);
  const body = head.bytes(payload).finish();
  return concat([body, new Builder().unsigned(crc32c(body), 4).finish()]);
}

/** Collects the chunks of one file. */
export class Muxer {
  /** @param {Map} fields of HEAD @param {number[]} readVersion least version a reader must know */
  constructor(fields, readVersion) {
    const payload = packHeader(normal(fields), readVersion);
    this.header = unpackHeader(payload);
    this.parts = [SIGNATURE];
    this.size = SIGNATURE.length;
    this.frames = 0;
    this.groups = [];
    this.chunks = [];
    this.put("HEAD", payload);
  }

  /** Append a chunk; groups go through `putGroup`. */
  put(type, payload, flags) {
    if (type === "APKT") this.chunks.push({ offset: this.size, time: firstTime(payload) });
    const chunk = packChunk(type, payload, flags);
    this.parts.push(chunk);
    this.size += chunk.length;
  }

  /** Append a MOTN chunk; `group` is what `unpackGroup` returns of its payload. */
  putGroup(payload, { first, count, times }) {
    require(first === this.frames, "bad-frames", `expected a group from frame ${this.frames}, found ${first}`);
    const time = times ? times[0] : constantTime(this.header, first);
    this.groups.push({ offset: this.size, count, time });
    this.put("MOTN", payload);
    this.frames += count;
  }

  /** Append INDX and ENDS and return the file. */
  finish(motionSha256) {
    const { groups, chunks, frames, header } = this;
    const promised = header.frames ?? frames;
    require(promised === frames, "bad-frames", `expected ${promised} frames, found ${frames}`);
    let index = 0;
    if (groups.length || chunks.length) {
      index = this.size;
      this.put("INDX", packIndex({ groups, chunks, hasTimes: !header.frameTicks }));
    }
    this.put("ENDS", packEnd({ index, frames, motionSha256 }));
    return concat(this.parts);
  }
}

/** Return the dts of the first packet of an APKT payload. */
function firstTime(payload) {
  const fields = new Fields(payload, "bad-audio");
  fields.varint();
  return fields.svarint();
}

/** Return fields of HEAD as writers write them: no empty ones, the time base as a reduced fraction. */
function normal(fields) {
  const kept = new Map(fields);
  if (kept.get("encoder") === "") kept.delete("encoder");
  if (kept.get("settings")?.size === 0) kept.delete("settings");
  const [numerator, denominator, ...rest] = kept.get("rate");
  let [a, b] = [numerator, denominator];
  while (b) [a, b] = [b, a % b];
  return kept.set("rate", [numerator / a, denominator / a, ...rest]);
}
