// What the player's decoder reads of files, as JSON: `node facts.mjs FILE...` prints one line each.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const bits = new URL("../../codec/sglat/player/bits/", import.meta.url);
const { Demuxer } = await import(fileURLToPath(new URL("demux.js", bits)));
const { constantTime } = await import(fileURLToPath(new URL("motion.js", bits)));

function facts(bytes) {
  const found = { frames: 0, motion: [], times: [], flags: [], placement: [], layers: [], packets: [] };
  const { error, header } = run(bytes, found);
  return { ...found, ...(error ? { error: error.code, offset: error.offset, message: String(error) } : {}), header };
}

function run(bytes, found) {
  try {
    const demuxer = new Demuxer(bytes);
    let place = null;
    for (const event of demuxer.events()) {
      if (event.layer) found.layers.push(event.layer.map((entry) => [...entry.integers]));
      if (event.placement) place = rows(event.placement.values, 4);
      if (event.packets) found.packets.push(...event.packets.map((p) => Buffer.from(p.data).toString("hex")));
      if (!event.group) continue;
      const { group } = event;
      found.frames += group.count;
      found.motion.push(...rows(group.values, 34));
      const times = group.times ?? Array.from({ length: group.count }, (_, n) => constantTime(demuxer.header, group.first + n));
      found.times.push(...times);
      found.flags.push(...(group.flags ?? new Uint8Array(group.count)));
      found.placement.push(place);
      place = null;
    }
    return {};
  } catch (error) {
    if (error.code === undefined) throw error;
    return { error };
  }
}

function rows(values, width) {
  return Array.from({ length: values.length / width }, (_, at) => [...values.subarray(at * width, (at + 1) * width)]);
}

for (const path of process.argv.slice(2)) {
  process.stdout.write(`${JSON.stringify(facts(new Uint8Array(readFileSync(path))))}\n`);
}
