// Which renderer the browser can do: WebGPU, else WebGL2, else the processor.

import * as cpu from "./cpu.js";
import * as webgl2 from "./webgl2.js";
import * as webgpu from "./webgpu.js";

const KINDS = { webgpu, webgl2, cpu };

/**
 * Return the first renderer that works.
 *
 * `options` are those of a renderer's `create`; `wanted` names the kinds to try, in order.
 */
export async function createRenderer(options, wanted = Object.keys(KINDS)) {
  const faults = [];
  for (const kind of wanted) {
    try {
      const renderer = await KINDS[kind].create(options);
      if (renderer) return renderer;
      faults.push(`${kind}: not here`);
    } catch (error) {
      faults.push(`${kind}: ${error.message}`);
    }
  }
  throw new Error(`this browser cannot draw the pictures (${faults.join("; ")})`);
}

/** Draw a picture, a canvas or an ImageData, on a 2D canvas of its size. */
export function paint(canvas, picture) {
  const { width, height } = picture;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d", { alpha: false });
  if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
  else context.drawImage(picture, 0, 0);
}
