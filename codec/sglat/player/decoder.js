// A file as the page uses it: what it holds, its frames by number or time, its sound, its figures.
//
//   const file = open(bytes);                 // or: await openInSteps(bytes), which never blocks long
//   for (const frames of file.groups()) ...   // [{index, pts, seconds, values, held, cut, placement}]
//   const frame = file.seek(1.5);
//
// Nothing of a file is executed or fetched; texts are data and belong into `textContent` only.

import { FormatError, require } from "./bits/errors.js";
import { CUT, HELD } from "./bits/limits.js";
import { Demuxer } from "./bits/demux.js";
import { KIND_NAMES, LATENT, checkIdentity, weightResolution } from "./bits/identity.js";
import { constantTime, dequantize, unpackFrames, unpackPlacement } from "./bits/motion.js";
import { unpackPackets } from "./bits/extras.js";

export { FormatError, MismatchError } from "./bits/errors.js";
export { Person } from "./person.js";
export { Bundle, weights } from "./weights.js";

const CACHED_FRAMES = 2 ** 16; // about 18 MB of values
const STEP_MILLISECONDS = 12; // of work between two pauses
const TIME_SLACK = 1e-9; // seconds; a frame's own time, written as a decimal number, finds the frame

/**
 * Read a whole file.
 *
 * Damage after the first whole group is kept in `file.damage`, and what stands before it plays.
 *
 * @param {Uint8Array} bytes
 * @returns {File}
 * @throws {FormatError} nothing can be shown
 */
export function open(bytes) {
  const file = new File(bytes);
  while (!file.step());
  return file;
}

/**
 * Read a whole file as `open`, with pauses in which the page can draw.
 *
 * @param {Uint8Array} bytes
 * @param {{onProgress?: (share: number) => void, signal?: AbortSignal}} options
 * @returns {Promise<File>}
 */
export async function openInSteps(bytes, { onProgress = () => {}, signal } = {}) {
  const file = new File(bytes);
  let began = performance.now();
  while (!file.step()) {
    if (performance.now() - began < STEP_MILLISECONDS) continue;
    onProgress(file.readBytes / bytes.length);
    await new Promise((resume) => setTimeout(resume));
    signal?.throwIfAborted();
    began = performance.now();
  }
  return file;
}

/** One open file. */
export class File {
  constructor(bytes) {
    this.bytes = bytes;
    this._demuxer = new Demuxer(bytes);
    this._events = this._demuxer.events();
    this.header = this._demuxer.header;
    /** `{neutral, idFrame, sha256, layers}`; null where it lies in another file (`reference`). */
    this.identity = null;
    this.reference = null;
    /** Neutral of the motion's source after a swap, `[34]`; null: the identity's own. */
    this.motionNeutral = null;
    /** `{format, packetCount, byteCount}` and `packets(from)`; null without sound. */
    this.audio = null;
    this.plate = null;
    this.thumbnail = null;
    this.provenance = null;
    this.metadata = new Map();
    this.motionSha256 = null;
    /** What was wrong after the part that plays; null in a whole file. */
    this.damage = null;
    this.frameCount = 0;
    /** Payload bytes and number of chunks by type. */
    this.chunks = new Map();
    /** Chunks in their order: type, flags, offset, end, payload; what `edits.js` copies. */
    this.parts = [];
    /** Figures of each layer: number, bytes, kind, entries, integers, resolution, kinds of entries. */
    this.layerFigures = [];
    this.heldFrames = 0;
    this.cuts = 0;
    this._groups = [];
    this._place = null;
    this._cache = new Map();
    this._cachedFrames = 0;
    this._count(this._demuxer.head);
  }

  /** Bytes read so far. */
  get readBytes() {
    return this._demuxer.at;
  }

  /** Read one chunk; returns whether the file is read. */
  step() {
    try {
      const { done, value } = this._events.next();
      if (done) return true;
      this._take(value);
      return false;
    } catch (error) {
      if (!(error instanceof FormatError) || this.frameCount === 0) throw error;
      this.damage = error;
      return true;
    }
  }

  _count(chunk) {
    const figures = this.chunks.get(chunk.type) ?? { count: 0, bytes: 0 };
    this.chunks.set(chunk.type, { count: figures.count + 1, bytes: figures.bytes + chunk.payload.length });
    const { type, flags, offset, end, payload } = chunk;
    this.parts.push({ type, flags, offset, end, payload });
  }

  _take(event) {
    this._count(event);
    switch (event.type) {
      case "IDEN":
        this.identity = { neutral: event.neutral, idFrame: event.idFrame, layers: [], sha256: null };
        return this._takeLayer(event, 0);
      case "LAYR": return this._takeLayer(event, event.number);
      case "IREF": this.reference = event.reference; break;
      case "NEUT": this.motionNeutral = event.neutral; break;
      case "AHDR": this.audio = new Audio(event.format); break;
      case "APKT": this.audio._take(event); break;
      case "PLAT": this.plate = event.picture; break;
      case "THMB": this.thumbnail = event.picture; break;
      case "PROV": this.provenance = event.provenance; break;
      case "META": this.metadata = event.metadata; break;
      case "PLAC": this._place = event.payload; break;
      case "MOTN": return this._takeGroup(event);
      case "ENDS": this.motionSha256 = event.end.motionSha256; break;
    }
    return this._finishIdentity(event.type);
  }

  _takeLayer({ layer, payload }, number) {
    this.identity.layers.push(layer);
    const isLatent = layer[0].kind === LATENT;
    this.layerFigures.push({
      number,
      bytes: payload.length,
      kind: isLatent ? "latent" : "weights",
      entries: layer.length,
      integers: layer.reduce((sum, entry) => sum + entry.count, 0),
      resolution: isLatent ? null : Math.max(...layer.map((entry) => weightResolution(entry.name))),
      kinds: [...new Set(layer.map((entry) => KIND_NAMES[entry.kind]))],
    });
  }

  _finishIdentity(type) {
    const isLast = type === "MOTN" || type === "ENDS";
    if (isLast && this.identity && !this.identity.sha256) {
      this.identity.sha256 = this._demuxer.identityHash.digest();
    }
  }

  _takeGroup({ group, type, payload }) {
    this._finishIdentity(type);
    const { first, count, times, flags, stream, values, time } = group;
    const number = this._groups.length;
    const bytes = payload.length;
    this._groups.push({ first, count, times, flags, stream, time, bytes, place: this._place });
    this._place = null;
    this.frameCount += count;
    if (flags) {
      for (const flag of flags) {
        this.heldFrames += flag & HELD ? 1 : 0;
        this.cuts += flag & CUT ? 1 : 0;
      }
    }
    if (this._cachedFrames + count <= CACHED_FRAMES) this._keep(number, values);
  }

  /** Lines that a viewer should know. */
  get warnings() {
    const lines = [];
    if (this.damage) {
      lines.push(`the file is damaged after ${this.frameCount} frames, which play: ${this.damage}`);
    }
    if (!this.identity) lines.push(`the identity lies in another file${this.reference?.hint ? `: ${this.reference.hint}` : ""}`);
    if (!this.provenance) lines.push("the file does not tell who made it");
    return lines;
  }

  /** Seconds from the first frame's start to the last one's end. */
  get durationSeconds() {
    if (!this.frameCount) return 0;
    const [first, last] = [this._ticksOf(0), this._ticksOf(this.frameCount - 1)];
    const even = this.frameCount > 1 ? (last - first) / (this.frameCount - 1) : 0;
    return this._seconds(last - first + (this.header.frameTicks || even));
  }

  /** Frames per second where constant, else null. */
  get frameRate() {
    const [numerator, denominator] = this.header.timeBase;
    return this.header.frameTicks ? denominator / (numerator * this.header.frameTicks) : null;
  }

  /** Seconds of the first frame on the file's clock; sound has the same clock. */
  get startSeconds() {
    return this.frameCount ? this._seconds(this._ticksOf(0)) : 0;
  }

  /** Start in seconds, frames and payload bytes of each motion group. */
  get groupFigures() {
    return this._groups.map(({ time, count, bytes }) => ({ seconds: this._seconds(time), frames: count, bytes }));
  }

  /** Take the identity of another file, that this one refers to; raises `identity-mismatch`. */
  attach(other) {
    require(other.identity, "no-identity", "expected a file with an identity, found a reference");
    if (this.reference) checkIdentity(this.reference, other.identity.sha256);
    this.identity = other.identity;
    this.layerFigures = other.layerFigures;
  }

  /** Yield the frames of each motion group, in order. */
  *groups() {
    for (let number = 0; number < this._groups.length; number++) {
      const { first, count } = this._groups[number];
      yield Array.from({ length: count }, (_, at) => this.frame(first + at));
    }
  }

  /**
   * Return a frame: `{index, pts, seconds, values, integers, held, cut, placement}`.
   *
   * `values` are yaw, pitch (degrees) and 32 controls, Float32Array, not to be changed; `placement` is
   * centre x, centre y, size (pixels) and roll (degrees), or null.
   */
  frame(index) {
    require(index >= 0 && index < this.frameCount, "bad-frames", `expected a frame below ${this.frameCount}, found ${index}`);
    const number = this._groupOf((group) => group.first <= index);
    const group = this._groups[number];
    const { values, integers, places } = this._decoded(number);
    const at = index - group.first;
    const [width, flag] = [this.header.steps.length, group.flags?.[at] ?? 0];
    const pts = this._ticksOf(index, group);
    return {
      index,
      pts,
      seconds: this._seconds(pts),
      values: values.subarray(at * width, (at + 1) * width),
      integers: integers.subarray(at * width, (at + 1) * width),
      held: (flag & HELD) > 0,
      cut: (flag & CUT) > 0,
      placement: places ? places.subarray(4 * at, 4 * (at + 1)) : null,
    };
  }

  /** Return the integers `[count · 34]` of the group that begins with a frame; not to be changed. */
  integersOf(first) {
    return this._decoded(this._groupOf((group) => group.first <= first)).integers;
  }

  /** Return the number of the last frame that begins at a time or before; the first one earlier. */
  indexAt(seconds) {
    const isBefore = (pts) => this._seconds(pts) <= seconds + TIME_SLACK;
    const group = this._groups[this._groupOf((one) => isBefore(one.time))];
    let [low, high] = [0, group.count];
    while (high - low > 1) {
      const half = (low + high) >> 1;
      if (isBefore(this._ticksOf(group.first + half, group))) low = half;
      else high = half;
    }
    return group.first + low;
  }

  /** Return the frame shown at a time. */
  seek(seconds) {
    return this.frame(this.indexAt(seconds));
  }

  /** Return the number of the last group of which a rising claim holds; the first one else. */
  _groupOf(holds) {
    let [low, high] = [0, this._groups.length];
    while (high - low > 1) {
      const half = (low + high) >> 1;
      if (holds(this._groups[half])) low = half;
      else high = half;
    }
    return low;
  }

  _ticksOf(index, group = this._groups[this._groupOf((one) => one.first <= index)]) {
    return group.times ? group.times[index - group.first] : constantTime(this.header, index);
  }

  _seconds(ticks) {
    const [numerator, denominator] = this.header.timeBase;
    return (ticks * numerator) / denominator;
  }

  /** Return a group's integers, values and placement; groups need nothing of each other. */
  _decoded(number) {
    const cached = this._cache.get(number);
    if (cached) return cached;
    const { stream, count } = this._groups[number];
    return this._keep(number, unpackFrames(stream, count, this.header.model));
  }

  _keep(number, integers) {
    const { count, place } = this._groups[number];
    while (this._cachedFrames + count > CACHED_FRAMES && this._cache.size) {
      const [oldest] = this._cache.keys();
      this._cachedFrames -= this._groups[oldest].count;
      this._cache.delete(oldest);
    }
    const values = dequantize(integers, this.header.steps);
    const places = place ? placesOf(place, this.header) : null;
    this._cache.set(number, { integers, values, places });
    this._cachedFrames += count;
    return this._cache.get(number);
  }
}

function placesOf(payload, header) {
  return dequantize(unpackPlacement(payload, header).values, header.placementSteps);
}

/** The sound of a file: packets stay in their chunks until they are asked for. */
class Audio {
  constructor(format) {
    /** codec (FFmpeg's name), channels, sampleRate, layout, extra, frameSize, timeBase. */
    this.format = format;
    this.packetCount = 0;
    this.byteCount = 0;
    this._chunks = [];
    this._ends = []; // seconds at which a chunk's last packet is over, never falling
    this._first = null; // ticks
    this._last = 0;
  }

  _take({ payload, packets }) {
    this.packetCount += packets.length;
    this.byteCount += packets.reduce((sum, packet) => sum + packet.data.length, 0);
    const end = packets.reduce((most, packet) => Math.max(most, packet.pts + packet.duration), -Infinity);
    this._first ??= packets[0].pts;
    this._last = end;
    this._chunks.push(payload);
    this._ends.push(Math.max(this._seconds(end), this._ends.at(-1) ?? -Infinity));
  }

  _seconds(ticks) {
    return (ticks * this.format.timeBase[0]) / this.format.timeBase[1];
  }

  /** Seconds at which the last packet is over. */
  get endSeconds() {
    return this._ends.at(-1) ?? 0;
  }

  /** Seconds from the first packet's start to the last chunk's end. */
  get durationSeconds() {
    return this._seconds(this._last - (this._first ?? 0));
  }

  /** Yield packets in their order: data, seconds, durationSeconds, pts, dts, isKey. */
  *packets(fromSeconds = -Infinity) {
    for (let at = 0; at < this._chunks.length; at++) {
      if (this._ends[at] < fromSeconds) continue;
      for (const packet of unpackPackets(this._chunks[at])) {
        const seconds = this._seconds(packet.pts);
        const durationSeconds = this._seconds(packet.duration);
        if (seconds + durationSeconds < fromSeconds) continue;
        yield { ...packet, seconds, durationSeconds };
      }
    }
  }
}
