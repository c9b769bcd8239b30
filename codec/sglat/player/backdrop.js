// The background plate of a file, with the generated crop where the placement has it.

import { drawLabel } from "./renderers.js";

const MEDIA_TYPES = ["image/jpeg", "image/png", "image/webp", "image/avif"];
const MOST_PIXELS = 1280; // of the longer side
const FEATHER = 0.06; // of the crop's side, over which its edges fade

/** Return a file's plate as a bitmap; null without one, or if the browser cannot read it. */
export async function openPlate({ plate, header }) {
  if (!plate || !header.sourceSize || !MEDIA_TYPES.includes(plate.mediaType)) return null;
  return createImageBitmap(new Blob([plate.data], { type: plate.mediaType })).catch(() => null);
}

/** Draw a picture on a plate. `placement` is centre x, centre y, size (pixels) and roll (degrees). */
export function paintOnto(canvas, plate, picture, { placement, sourceSize, label }) {
  const [width, height] = sourceSize;
  const scale = Math.min(1, MOST_PIXELS / Math.max(width, height));
  const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d", { alpha: false });
  context.drawImage(plate, 0, 0, ...size);
  const [x, y, side, roll] = placement;
  context.save();
  context.translate(x * scale, y * scale);
  context.rotate((roll * Math.PI) / 180);
  const half = (side * scale) / 2;
  context.drawImage(faded(picture), -half, -half, 2 * half, 2 * half);
  context.restore();
  drawLabel(context, label);
}

/** Return a picture whose edges fade. */
function faded(picture) {
  const { width, height } = picture;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
  else context.drawImage(picture, 0, 0);
  picture.close?.();
  context.globalCompositeOperation = "destination-in";
  for (const end of [
    [width, 0],
    [0, height],
  ]) {
    const shade = context.createLinearGradient(0, 0, ...end);
    for (const [at, alpha] of [[0, 0], [FEATHER, 1], [1 - FEATHER, 1], [1, 0]]) {
      shade.addColorStop(at, `rgb(0 0 0 / ${alpha})`);
    }
    context.fillStyle = shade;
    context.fillRect(0, 0, width, height);
  }
  return canvas;
}
