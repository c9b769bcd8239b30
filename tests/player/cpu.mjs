// Draws a generator on the processor: node cpu.mjs GIVEN.json, which names channels, weights, styles.

import { readFileSync } from "node:fs";
import { create } from "../../codec/sglat/player/cpu.js";

globalThis.ImageData = class {
  constructor(data, width) {
    Object.assign(this, { data, width, height: width });
  }
};
const { channels, weights, styles } = JSON.parse(readFileSync(process.argv[2]));
const named = new Map(Object.entries(weights).map(([name, v]) => [name, Float32Array.from(v)]));
for (const isPlain of [false, true]) {
  const renderer = await create({ channels, weights: named, isPlain });
  const picture = await renderer.render(styles.map((s) => Float32Array.from(s)), 32);
  const rgb = [...picture.data].filter((_, at) => (at & 3) < 3);
  console.log(JSON.stringify({ kind: renderer.kind, rgb }));
}
