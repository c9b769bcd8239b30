// A file with the identity of another: `node attach.mjs FILE IDENTITY...`, one line each.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { open } = await import(
  fileURLToPath(new URL("../../codec/sglat/player/decoder.js", import.meta.url))
);

const load = (path) => open(new Uint8Array(readFileSync(path)));
const [path, ...others] = process.argv.slice(2);
for (const other of others) {
  const file = load(path);
  try {
    file.attach(load(other));
    console.log(JSON.stringify([...file.identity.layers[0][0].integers]));
  } catch (error) {
    console.log(error.code);
  }
}
