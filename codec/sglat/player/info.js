// The figures of a file for tables: the record that `sgl-info --json` prints (format_spec/info.schema.json).

import { toHex } from "./bits/fields.js";
import { CHUNKS } from "./bits/limits.js";

const SCHEMA_VERSION = 1;
const FRAME_BYTES = 12; // of a chunk: type, flags, length, checksum
const SIGNATURE_BYTES = 8;
/** Chunk types by stream; the rest is the container's. */
const STREAMS = {
  identity: ["IDEN", "LAYR", "IREF"],
  motion: ["MOTN"],
  placement: ["PLAC"],
  audio: ["AHDR", "APKT"],
  plate: ["PLAT"],
};

/** Return the record of a file. @param {import("./decoder.js").File} file */
export function describe(file) {
  const { header, damage, provenance, reference } = file;
  const sizes = (type) => file.chunks.get(type)?.bytes ?? 0;
  const chunkCount = [...file.chunks.values()].reduce((sum, { count }) => sum + count, 0);
  const picture = (one) => one && { media_type: one.mediaType, bytes: one.data.length };
  return {
    schema: SCHEMA_VERSION,
    version: header.version.join("."),
    read_version: header.readVersion.join("."),
    file_bytes: file.readBytes,
    is_complete: damage === null,
    error: damage && { code: damage.code, message: damage.message, offset: damage.offset },
    decoder_id: toHex(header.decoderId),
    bundle: header.bundle,
    resolution: header.resolution,
    latent_shape: [header.numWs, header.wDim],
    encoder: header.encoder,
    settings: Object.fromEntries(header.settings),
    time_base: fractionText(header.timeBase),
    source_size: header.sourceSize,
    identity: {
      sha256: file.identity ? toHex(file.identity.sha256) : null,
      bytes: sizes("IDEN") + sizes("LAYR"),
      layers: file.layerFigures.map(({ kinds, ...figures }) => figures),
      reference: reference && { sha256: toHex(reference.sha256), hint: reference.hint },
    },
    motion: motionFigures(file, sizes),
    motion_sha256: file.motionSha256 && toHex(file.motionSha256),
    audio: file.audio && audioFigures(file.audio),
    plate: picture(file.plate),
    thumbnail: picture(file.thumbnail),
    provenance: provenance && {
      generated_by: provenance.by,
      consent: provenance.consent,
      note: provenance.note,
      source_sha256: provenance.source ? toHex(provenance.source) : "",
      edits: editsOf(provenance.map),
    },
    metadata: Object.fromEntries(file.metadata),
    container_bytes: SIGNATURE_BYTES + FRAME_BYTES * chunkCount + sizes("INDX") + sizes("ENDS"),
    chunks: Object.fromEntries(file.chunks),
    unknown_chunks: [...file.chunks.keys()].filter((type) => !CHUNKS.has(type)),
  };
}

/** Return bytes by stream: `[[stream, bytes], ...]`, `container` and `total` last. */
export function streamBytes(file) {
  const total = file.readBytes;
  const streams = Object.entries(STREAMS).map(([stream, types]) => [
    stream,
    types.reduce((sum, type) => sum + (file.chunks.get(type)?.bytes ?? 0), 0),
  ]);
  const known = streams.reduce((sum, [, bytes]) => sum + bytes, 0);
  return [...streams, ["container", total - known], ["total", total]];
}

/**
 * Return the motion's rate over time: seconds, frames and bits of each group, for a plot.
 *
 * @returns {{seconds: number, durationSeconds: number, frames: number, bits: number}[]}
 */
export function rateOverTime(file) {
  const groups = file.groupFigures;
  const end = file.startSeconds + file.durationSeconds;
  return groups.map(({ seconds, frames, bytes }, at) => ({
    seconds,
    durationSeconds: (groups[at + 1]?.seconds ?? end) - seconds,
    frames,
    bits: 8 * bytes,
  }));
}

function motionFigures(file, sizes) {
  const { frameCount, durationSeconds, header } = file;
  if (!frameCount) return null;
  const bytes = sizes("MOTN");
  return {
    frames: frameCount,
    groups: file.chunks.get("MOTN").count,
    duration_seconds: durationSeconds,
    frames_per_second: durationSeconds ? frameCount / durationSeconds : null,
    is_constant_rate: header.frameTicks > 0,
    bytes,
    bits_per_frame: (8 * bytes) / frameCount,
    kilobits_per_second: durationSeconds ? (8 * bytes) / durationSeconds / 1000 : null,
    held_frames: file.heldFrames,
    cuts: file.cuts,
    placement_bytes: sizes("PLAC"),
  };
}

function audioFigures(audio) {
  const { codec, sampleRate, channels } = audio.format;
  return {
    codec,
    sample_rate: sampleRate,
    channels,
    packets: audio.packetCount,
    bytes: audio.byteCount,
    duration_seconds: audio.durationSeconds,
  };
}

/** Return the edits by name that a record of origin tells. */
function editsOf(map) {
  const found = map.get("edits");
  return Array.isArray(found) ? found.filter((text) => typeof text === "string") : [];
}

function fractionText([numerator, denominator]) {
  let [a, b] = [numerator, denominator];
  while (b) [a, b] = [b, a % b];
  return denominator === a ? `${numerator / a}` : `${numerator / a}/${denominator / a}`;
}
