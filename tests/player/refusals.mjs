// Why files are refused: `node refusals.mjs WEIGHTS FILE...`, one line each.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { Person, open, weights } = await import(
  fileURLToPath(new URL("../../codec/sglat/player/decoder.js", import.meta.url))
);

const [packed, ...paths] = process.argv.slice(2);
const bundle = weights(new Uint8Array(readFileSync(packed)));
for (const path of paths) {
  try {
    new Person(bundle, open(new Uint8Array(readFileSync(path))));
    console.log("none");
  } catch (error) {
    if (error.code === undefined) throw error;
    console.log(String(error));
  }
}
