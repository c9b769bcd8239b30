// Downloads: the picture of a frame and a film of a range, both marked as generated.

import { decoderConfig } from "./sound.js";
import { generatedTags, markPng } from "./marking.js";
import { paint } from "./renderers.js";
import { webm } from "./webm.js";

const KEY_FRAMES = 100; // between two key frames
const BITS_PER_PIXEL = 0.35; // of a frame: about 2.3 Mbit/s at 512 px and 25 frames/s
const QUEUE = 8; // pictures that wait for the encoder
const CODECS = { "vp09.00.31.08": "V_VP9", vp8: "V_VP8" };

/** Return a PNG of a picture, marked. */
export async function still(picture, look, { label, mark, watermark, seconds = 0 }) {
  const canvas = marked(picture, seconds, { label, mark });
  const png = await canvas.convertToBlob({ type: "image/png" });
  return markPng(new Uint8Array(await png.arrayBuffer()), generatedTags(look, watermark));
}

/**
 * Return a WebM of the frames from one time to another, with the sound where it can be had.
 *
 * `pictureOf(frame)` draws; `signal` stops; `onProgress(share)` is called after each frame.
 */
export async function film(stage, look, { size, from, to, mark, watermark, signal, onProgress }) {
  const { motion } = stage;
  const first = motion.indexAt(from);
  const last = Math.max(first, motion.indexAt(Math.max(from, to - 1e-6)));
  const start = motion.frame(first).seconds;
  const { encoder, chunks, codec } = await videoEncoder(size, 1 / stage.frameSeconds);
  const seconds = [];
  try {
    for (let index = first; index <= last; index++) {
      signal.throwIfAborted();
      const frame = motion.frame(index);
      const picture = await stage.picture(frame, size);
      const canvas = marked(picture, frame.seconds - start, { label: stage.label, mark });
      const timestamp = Math.round((frame.seconds - start) * 1e6);
      seconds.push(frame.seconds - start);
      const one = new VideoFrame(canvas, { timestamp });
      encoder.encode(one, { keyFrame: (index - first) % KEY_FRAMES === 0 });
      one.close();
      while (encoder.encodeQueueSize > QUEUE) await new Promise((go) => setTimeout(go, 5));
      onProgress((index - first + 1) / (last - first + 1));
    }
    await encoder.flush();
  } finally {
    if (encoder.state !== "closed") encoder.close();
  }
  const end = seconds.at(-1) + stage.frameSeconds;
  const audio = stage.hasSound ? await opus(motion.audio, start, start + end) : null;
  return webm({
    video: { codec, width: size, height: size, chunks },
    audio,
    durationSeconds: end,
    tags: generatedTags(look, watermark),
  });
}

/** Return a canvas with a picture and label, through `mark(imageData, seconds)` if there is one. */
function marked(picture, seconds, { label, mark }) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = paint(canvas, picture, label);
  if (mark) {
    const data = context.getImageData(0, 0, canvas.width, canvas.height);
    context.putImageData(mark(data, seconds), 0, 0);
  }
  return canvas;
}

async function videoEncoder(size, framerate) {
  if (!globalThis.VideoEncoder) throw new Error("this browser cannot write a film: it lacks WebCodecs");
  const chunks = [];
  for (const [codec, name] of Object.entries(CODECS)) {
    const bitrate = Math.round(Math.max(400_000, size * size * framerate * BITS_PER_PIXEL));
    const config = { codec, width: size, height: size, bitrate, framerate };
    const { supported } = await VideoEncoder.isConfigSupported(config);
    if (!supported) continue;
    const encoder = new VideoEncoder({ output: (chunk) => chunks.push(kept(chunk)), error: () => {} });
    encoder.configure(config);
    return { encoder, chunks, codec: name };
  }
  throw new Error("this browser cannot write a film: it encodes neither VP9 nor VP8");
}

function kept(chunk) {
  const data = new Uint8Array(chunk.byteLength);
  chunk.copyTo(data);
  return { data, seconds: chunk.timestamp / 1e6, isKey: chunk.type === "key" };
}

/** Return the sound of a range as Opus packets: copied where it is Opus, else encoded. */
async function opus(audio, from, to) {
  const { format } = audio;
  const within = (one) => one.seconds >= from - 0.01 && one.seconds < to;
  if (format.codec === "opus") {
    const chunks = [...audio.packets(from)].filter(within);
    return {
      channels: format.channels,
      sampleRate: format.sampleRate,
      description: format.extra.length ? format.extra : null,
      chunks: chunks.map(({ data, seconds }) => ({ data, seconds: seconds - from })),
    };
  }
  const chunks = [];
  let description = null;
  const { sampleRate, channels } = format;
  const encoder = new AudioEncoder({
    output: (chunk, { decoderConfig: found }) => {
      if (found?.description) description = new Uint8Array(found.description);
      chunks.push(kept(chunk));
    },
    error: () => {},
  });
  encoder.configure({ codec: "opus", sampleRate, numberOfChannels: channels, bitrate: 48_000 * channels });
  const decoder = new AudioDecoder({
    output: (data) => {
      if (encoder.state === "configured") encoder.encode(data);
      data.close();
    },
    error: () => {},
  });
  decoder.configure(decoderConfig(format));
  for (const { data, seconds, durationSeconds } of audio.packets(from)) {
    if (seconds >= to) break;
    const [timestamp, duration] = [seconds - from, durationSeconds].map((s) => Math.round(s * 1e6));
    decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, duration, data }));
  }
  try {
    await decoder.flush();
    await encoder.flush();
  } catch {
    return null; // a film without sound is better than none
  }
  const heard = chunks.filter((chunk) => chunk.seconds >= 0);
  return heard.length ? { channels, sampleRate: 48_000, description, chunks: heard } : null;
}
