// Reads files with the player's modules: `node player_decoding.mjs PLAYER WEIGHTS OUT FILE...`.
//
// One line of JSON for each file: processor times, names and sizes; the numbers themselves, float32,
// go to OUT/N.bin: tuned weights, then the styles of three frames.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [player, packed, folder, ...paths] = process.argv.slice(2);
const { Person, open, weights } = await import(pathToFileURL(`${player}/decoder.js`).href);
const STYLED_FRAMES = 60;

/** Return what a function returns and the processor time that it took. */
function timed(work) {
  const began = process.cpuUsage();
  const result = work();
  const { user, system } = process.cpuUsage(began);
  return [result, (user + system) / 1000];
}

const bundle = weights(new Uint8Array(readFileSync(packed)));
paths.forEach((path, number) => {
  const bytes = new Uint8Array(readFileSync(path));
  open(bytes); // once before, so that the code is compiled
  const [file, openMilliseconds] = timed(() => open(bytes));
  const [person, personMilliseconds] = timed(() => new Person(bundle, file));
  const wanted = [0, file.frameCount >> 1, file.frameCount - 1];
  const styles = wanted.map((index) => person.styles(file.frame(index).values, { transfer: "absolute" }));
  const count = Math.min(STYLED_FRAMES, file.frameCount);
  const [, stylesMilliseconds] = timed(() => {
    for (let index = 0; index < count; index++) person.styles(file.frame(index).values);
  });
  const digest = createHash("sha256");
  for (const frames of file.groups()) {
    for (const { integers } of frames) digest.update(new Uint8Array(integers.slice().buffer));
  }
  const arrays = [...person.tunedWeights.values(), ...styles.flat()];
  writeFileSync(`${folder}/${number}.bin`, Buffer.concat(arrays.map((a) => Buffer.from(a.buffer))));
  console.log(JSON.stringify({
    frames: file.frameCount,
    damage: file.damage && file.damage.code,
    motion_sha256: digest.digest("hex"),
    open_milliseconds: openMilliseconds,
    person_milliseconds: personMilliseconds,
    styles_milliseconds: stylesMilliseconds / count,
    rungs: person.rungs,
    names: [...person.tunedWeights.keys()],
    sizes: arrays.map((array) => array.length),
    styled: wanted,
  }));
});
