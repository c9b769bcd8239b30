// The record of each file as `info.js` gives it: `node info.mjs FILE...`, one line of JSON each.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const player = new URL("../../codec/sglat/player/", import.meta.url);
const { open } = await import(fileURLToPath(new URL("decoder.js", player)));
const { describe, rateOverTime, streamBytes } = await import(fileURLToPath(new URL("info.js", player)));

for (const path of process.argv.slice(2)) {
  const file = open(new Uint8Array(readFileSync(path)));
  const streams = Object.fromEntries(streamBytes(file));
  console.log(JSON.stringify({ record: describe(file), streams, rate: rateOverTime(file) }));
}
