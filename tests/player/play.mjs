// A file through `decoder.js`, as JSON: `node play.mjs FILE...` prints one line each.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { open, openInSteps } = await import(
  fileURLToPath(new URL("../../codec/sglat/player/decoder.js", import.meta.url))
);

function facts(file) {
  const digest = createHash("sha256");
  const frames = [...file.groups()].flat();
  for (const frame of frames) digest.update(new Uint8Array(frame.values.slice().buffer));
  const again = [...frames.keys()].reverse().every((at) => {
    const frame = file.frame(at);
    return frame.pts === frames[at].pts && frame.values.every((value, c) => value === frames[at].values[c]);
  });
  return {
    frames: file.frameCount,
    values_sha256: digest.digest("hex"),
    seconds: frames.map((frame) => frame.seconds),
    held: frames.map((frame) => frame.held),
    cut: frames.map((frame) => frame.cut),
    placement: frames.map((frame) => frame.placement && [...frame.placement]),
    found: frames.map((frame) => file.seek(frame.seconds).index),
    between: frames.map((frame) => file.indexAt(frame.seconds + 1e-4)),
    before: file.frameCount ? file.indexAt(-1e300) : null,
    after: file.frameCount ? file.indexAt(1e300) : null,
    again,
    duration: file.durationSeconds,
    damage: file.damage?.code ?? null,
    warnings: file.warnings,
    packets: file.audio ? [...file.audio.packets()].map((p) => [p.seconds, p.data.length]) : null,
    metadata: [...file.metadata],
    consent: file.provenance?.consent ?? null,
  };
}

for (const path of process.argv.slice(2)) {
  const bytes = new Uint8Array(readFileSync(path));
  let line;
  try {
    const [file, inSteps] = [open(bytes), await openInSteps(bytes)];
    line = { ...facts(file), is_same_in_steps: inSteps.frameCount === file.frameCount };
  } catch (error) {
    if (error.code === undefined) throw error;
    line = { error: error.code, message: String(error) };
  }
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
