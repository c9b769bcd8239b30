// Marks pictures: node watermark.mjs GIVEN.json, which names tables, identifier and pictures.

import { readFileSync } from "node:fs";
import { Watermark } from "../../codec/sglat/player/watermark.js";

const { tables, identifier, pictures } = JSON.parse(readFileSync(process.argv[2]));
const mark = new Watermark(tables, Uint8Array.from(identifier));
for (const { width, height, rgba, seconds } of pictures) {
  const picture = { width, height, data: Uint8ClampedArray.from(Buffer.from(rgba, "base64")) };
  console.log(Buffer.from(mark.mark(picture, seconds).data).toString("base64"));
}
