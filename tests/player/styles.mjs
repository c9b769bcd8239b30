// Styles and tuned weights of files: `node styles.mjs WEIGHTS OUT FILE...`.
//
// For each file OUT/N.json (rungs, tensors and styles with their places) and OUT/N.bin (float32).

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { Person, open, weights } = await import(
  fileURLToPath(new URL("../../codec/sglat/player/decoder.js", import.meta.url))
);

const [packed, folder, ...paths] = process.argv.slice(2);
const bundle = weights(new Uint8Array(readFileSync(packed)));
for (const [number, path] of paths.entries()) {
  const file = open(new Uint8Array(readFileSync(path)));
  const person = number ? await Person.inSteps(bundle, file) : new Person(bundle, file);
  const arrays = [...person.tunedWeights.values()];
  const frames = [0, Math.floor(file.frameCount / 2), file.frameCount - 1];
  const began = performance.now();
  const styles = ["relative", "absolute"].map((transfer) =>
    frames.map((index) => person.styles(file.frame(index).values, { transfer })),
  );
  const milliseconds = (performance.now() - began) / (2 * frames.length);
  arrays.push(...styles.flat(2));
  const facts = {
    rungs: person.rungs,
    names: [...person.tunedWeights.keys()],
    sizes: arrays.map((array) => array.length),
    frames,
    milliseconds,
  };
  writeFileSync(`${folder}/${number}.json`, JSON.stringify(facts));
  writeFileSync(`${folder}/${number}.bin`, Buffer.concat(arrays.map((a) => Buffer.from(a.buffer))));
}
