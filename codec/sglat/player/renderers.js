// Which renderer the browser can do: WebGPU, else WebGL2, else the processor. Where WebGPU or WebGL2
// run in software, the processor's own code is faster, and they are left out unless asked for.

import * as cpu from "./cpu_worker.js";
import * as webgl2 from "./webgl2.js";
import * as webgpu from "./webgpu.js";

const KINDS = { webgpu, webgl2, cpu };

/**
 * Return the first renderer that works.
 *
 * `options` are those of a renderer's `create`; `wanted` names the kinds to try, in order.
 */
export async function createRenderer(options, wanted = null) {
  const faults = [];
  for (const kind of wanted ?? Object.keys(KINDS)) {
    try {
      const renderer = await KINDS[kind].create({ ...options, needsHardware: wanted === null });
      if (renderer) return renderer;
      faults.push(`${kind}: not here`);
    } catch (error) {
      faults.push(`${kind}: ${error.message}`);
    }
  }
  throw new Error(`this browser cannot draw the pictures (${faults.join("; ")})`);
}

/** Draw a picture, an ImageBitmap or an ImageData, on a 2D canvas of its size, with a label if not empty. */
export function paint(canvas, picture, label = "") {
  const { width, height } = picture;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d", { alpha: false });
  if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
  else context.drawImage(picture, 0, 0);
  picture.close?.();
  drawLabel(context, label);
  return context;
}

const DEFAULT_LABEL = "AI-generated";
const MOST_LETTERS = 64;

/** Return the visible label that a file asks for; empty if none. */
export function labelOf(file) {
  const found = file.provenance?.map.get("label");
  if (typeof found !== "string" || !found) return "";
  const text = found.split(/\s+/u).filter(Boolean).join(" ");
  const isLegal = text.length >= 1 && text.length <= MOST_LETTERS && !/\p{C}/u.test(text);
  return isLegal ? text : DEFAULT_LABEL;
}

/** Write a label into the lower left corner of a 2D canvas, white on a shaded box. */
export function drawLabel(context, text) {
  if (!text) return;
  const { width, height } = context.canvas;
  let size = Math.max(8, Math.round(0.055 * Math.min(width, height)));
  context.font = `${size}px sans-serif`;
  const most = width - 2 * size;
  const wide = context.measureText(text).width;
  if (wide > most) {
    size = Math.max(5, Math.floor((size * most) / wide));
    context.font = `${size}px sans-serif`;
  }
  const margin = size / 2;
  const box = [context.measureText(text).width + size, 1.6 * size];
  context.fillStyle = "rgb(0 0 0 / 70%)";
  context.fillRect(margin, height - margin - box[1], box[0], box[1]);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, margin + size / 2, height - margin - box[1] / 2);
}
