// Edits of files: `node edits.mjs JOBS.json`, where each job has a kind, paths and options.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const player = new URL("../../codec/sglat/player/", import.meta.url);
const { open } = await import(fileURLToPath(new URL("decoder.js", player)));
const { changedMotion, replaceMotion, swap, verified } = await import(fileURLToPath(new URL("edits.js", player)));

const load = (path) => open(new Uint8Array(readFileSync(path)));
const payload = (path) => load(path).parts.find((part) => part.type === "PROV").payload;

const KINDS = {
  replace({ file, integers, texts, drives }) {
    const raw = readFileSync(integers);
    const values = new Int32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length));
    return replaceMotion(load(file), values, { texts, drives: drives.map(payload) });
  },
  add({ file, channel, value, texts }) {
    const source = load(file);
    const changed = changedMotion(source, (values) => {
      values[channel] += value;
    });
    return replaceMotion(source, changed, { texts });
  },
  swap: ({ motion, look, transfer }) => swap(load(motion), load(look), { transfer }),
};

for (const job of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  try {
    const bytes = KINDS[job.kind](job);
    verified(bytes);
    writeFileSync(job.out, bytes);
    console.log("done");
  } catch (error) {
    if (error.code === undefined) throw error;
    console.log(String(error));
  }
}
