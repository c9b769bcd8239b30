// Time and memory that refusing hostile files takes: `node bombs.mjs FILE...`, JSON.
// The first is 500 MB of zeros, which take no memory until they are touched.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { open } = await import(
  fileURLToPath(new URL("../../codec/sglat/player/decoder.js", import.meta.url))
);

const report = [];
const files = process.argv.slice(2).map((path) => new Uint8Array(readFileSync(path)));
for (const bytes of [new Uint8Array(500e6), ...files]) {
  const memory = () => process.memoryUsage().rss;
  const [before, began] = [memory(), performance.now()];
  let code = null;
  try {
    code = open(bytes).damage?.code;
  } catch (error) {
    code = error.code;
  }
  const milliseconds = performance.now() - began;
  report.push({ code, milliseconds, grown_bytes: memory() - before });
}
process.stdout.write(JSON.stringify(report));
