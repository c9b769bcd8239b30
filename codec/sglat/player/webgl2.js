// Synthesis in fragment shaders, for browsers without WebGPU. Needs float textures as targets.
//
// Features lie in array textures of four layers, one for each pixel of a 2 x 2 block, so that one
// fragment computes 2 x 2 pixels of 4 channels from 4 x 4 pixels read once. Groups of 4 channels are
// tiles side by side in a layer.

import { entriesUpTo, outputGains, packConst, prepare, styledColours } from "./generator.js";
import { COLOURS, CONVOLVE, QUAD, SHOW, UPSAMPLE } from "./webgl2_shaders.js";

const MAX_GROUPS = 64; // of uniform arrays in the shaders: layers of at most 256 channels
const GROUPS_PER_ROW = 28; // of filters in a texture: 36 texels each, 1008 wide

/**
 * Return a renderer, or null where the browser cannot do it.
 *
 * `await render(styles, rung)` returns a picture of `rung` pixels, an ImageBitmap. `onLost` is called
 * when the context is gone. `needsHardware` refuses drawing in software.
 */
export async function create({ channels, weights, needsHardware = false, onLost = () => {} }) {
  const canvas = new OffscreenCanvas(16, 16);
  const gl = canvas.getContext("webgl2", {
    alpha: false,
    antialias: false,
    depth: false,
  });
  if (!gl || Math.max(...channels) > 4 * MAX_GROUPS) return null;
  const isFloat = gl.getExtension("EXT_color_buffer_float") !== null;
  if (!isFloat || (needsHardware && isSoftware(gl))) return null;
  canvas.addEventListener("webglcontextlost", onLost);
  const renderer = new Renderer(gl, canvas, channels, weights);
  renderer.onLost = onLost;
  return renderer;
}

function isSoftware(gl) {
  const named = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}

class Renderer {
  kind = "WebGL2";

  constructor(gl, canvas, channels, weights) {
    this.gl = gl;
    this.canvas = canvas;
    this.programs = Object.fromEntries(
      Object.entries({ CONVOLVE, UPSAMPLE, COLOURS, SHOW }).map(([name, source]) => [
        name,
        new Program(gl, QUAD, source),
      ]),
    );
    gl.bindVertexArray(gl.createVertexArray());
    this.framebuffer = gl.createFramebuffer();
    this.layers = prepare(channels, weights).map((layer) => ({ ...layer, texture: null }));
    for (const layer of this.layers) {
      if (layer.kind !== "torgb") layer.texture = filterTexture(gl, layer);
      layer.biasGroups = padded(layer.bias);
    }
    this.input = new Features(gl, 4, channels[0] / 4);
    this.input.upload(packConst(weights, channels[0]));
    this.targets = new Map();
    this.rung = 0;
    this.image = null;
  }

  /** Return the picture of a list of style vectors at a resolution. */
  async render(styles, rung) {
    const { gl, layers } = this;
    const count = entriesUpTo(rung);
    if (this.canvas.width !== rung) this.canvas.width = this.canvas.height = rung;
    let x = this.input;
    let image = null;
    for (let index = 0; index < count; index++) {
      const layer = layers[index];
      if (layer.kind === "torgb") {
        image = this.#colours(layer, styles[index], x, image);
      } else {
        x = this.#convolve(layer, styles[index], x);
        if (layer.kind === "conv_up") x = this.#upsample(layer, x);
      }
    }
    this.rung = rung;
    this.image = image;
    this.#show();
    const picture = this.canvas.transferToImageBitmap(); // before another call draws
    const drawn = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    while (gl.clientWaitSync(drawn, 0, 0) === gl.TIMEOUT_EXPIRED && !gl.isContextLost()) {
      await new Promise((resume) => setTimeout(resume)); // the page can react meanwhile
    }
    gl.deleteSync(drawn);
    return picture;
  }

  destroy() {
    this.canvas.removeEventListener("webglcontextlost", this.onLost);
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  #convolve(layer, style, x) {
    const { gl } = this;
    const isUp = layer.kind === "conv_up";
    const size = isUp ? layer.size / 2 : layer.size;
    const out = this.#target(`c${layer.index}`, size, layer.outputs / 4);
    const program = this.programs.CONVOLVE.use();
    program.texture("features", 0, gl.TEXTURE_2D_ARRAY, x.texture);
    program.texture("filters", 1, gl.TEXTURE_2D, layer.texture);
    program.vectors("styles", padded(style));
    program.vectors("gains", padded(outputGains(layer, style)));
    program.vectors("bias", layer.biasGroups);
    program.integers({ inGroups: x.groups, inTiles: x.tiles });
    program.integers({ outGroups: out.groups, outTiles: out.tiles, blocks: size / 2 });
    gl.uniform1f(program.at("slope"), isUp ? 1 : 0.2); // upsampling comes before activation
    return this.#draw(out);
  }

  #upsample(layer, x) {
    const { gl } = this;
    const out = this.#target(`u${layer.index}`, layer.size, x.groups);
    const program = this.programs.UPSAMPLE.use();
    program.texture("features", 0, gl.TEXTURE_2D_ARRAY, x.texture);
    program.integers({ tiles: out.tiles, size: x.size });
    return this.#draw(out);
  }

  #colours(layer, style, x, image) {
    const { gl } = this;
    const out = this.#target(`i${layer.index}`, layer.size, 1);
    const program = this.programs.COLOURS.use();
    program.texture("features", 0, gl.TEXTURE_2D_ARRAY, x.texture);
    program.texture("image", 1, gl.TEXTURE_2D_ARRAY, (image ?? x).texture);
    program.vectors("colours", styledColours(layer, style));
    gl.uniform3fv(program.at("bias"), layer.bias);
    program.integers({ groups: x.groups, tiles: x.tiles, blocks: layer.size / 2 });
    program.integers({ hasImage: image ? 1 : 0 });
    return this.#draw(out);
  }

  #show() {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, this.rung, this.rung);
    const program = this.programs.SHOW.use();
    program.texture("image", 0, gl.TEXTURE_2D_ARRAY, this.image.texture);
    program.integers({ size: this.rung });
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #target(name, size, groups) {
    if (!this.targets.has(name)) this.targets.set(name, new Features(this.gl, size, groups));
    return this.targets.get(name);
  }

  #draw(out) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    const places = [0, 1, 2, 3].map((at) => gl.COLOR_ATTACHMENT0 + at);
    places.forEach((place, at) =>
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, place, out.texture, 0, at),
    );
    gl.drawBuffers(places);
    gl.viewport(0, 0, out.width, out.height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    return out;
  }
}

/** Features of `groups` x 4 channels, `size` x `size` pixels, as blocks of 2 x 2. */
class Features {
  constructor(gl, size, groups) {
    const rows = Math.max(1, Math.round(Math.sqrt(groups)));
    Object.assign(this, { gl, size, groups, tiles: Math.ceil(groups / rows) });
    this.width = (this.tiles * size) / 2;
    this.height = (Math.ceil(groups / this.tiles) * size) / 2;
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.texture);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA32F, this.width, this.height, 4);
    nearest(gl, gl.TEXTURE_2D_ARRAY);
  }

  /** Fill from [groups][size][size] vectors of 4. */
  upload(values) {
    const { gl, size, groups, tiles, width, height } = this;
    const half = size / 2;
    const packed = new Float32Array(width * height * 16);
    for (let group = 0; group < groups; group++) {
      const [left, top] = [(group % tiles) * half, Math.floor(group / tiles) * half];
      for (let y = 0; y < size; y++) {
        for (let x = 0; x < size; x++) {
          const phase = (x & 1) + 2 * (y & 1);
          const to = (phase * height + top + (y >> 1)) * width + left + (x >> 1);
          const from = (group * size + y) * size + x;
          packed.set(values.subarray(4 * from, 4 * from + 4), 4 * to);
        }
      }
    }
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.texture);
    gl.texSubImage3D(
      gl.TEXTURE_2D_ARRAY, 0, 0, 0, 0, width, height, 4, gl.RGBA, gl.FLOAT, packed,
    );
  }
}

/** A program whose uniforms are looked up once. */
class Program {
  constructor(gl, vertex, fragment) {
    this.gl = gl;
    this.program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, vertex],
      [gl.FRAGMENT_SHADER, fragment],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    this.places = new Map();
  }

  use() {
    this.gl.useProgram(this.program);
    return this;
  }

  at(name) {
    if (!this.places.has(name)) {
      if (!this.places.size && !this.gl.getProgramParameter(this.program, this.gl.LINK_STATUS)) {
        throw new Error(`shader: ${this.gl.getProgramInfoLog(this.program)}`);
      }
      this.places.set(name, this.gl.getUniformLocation(this.program, name));
    }
    return this.places.get(name);
  }

  integers(values) {
    for (const [name, value] of Object.entries(values)) this.gl.uniform1i(this.at(name), value);
  }

  vectors(name, values) {
    this.gl.uniform4fv(this.at(name), values);
  }

  texture(name, unit, target, texture) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(target, texture);
    gl.uniform1i(this.at(name), unit);
  }
}

function filterTexture(gl, layer) {
  const inGroups = layer.inputs / 4;
  const rowsEach = Math.ceil(inGroups / GROUPS_PER_ROW);
  const width = 36 * Math.min(inGroups, GROUPS_PER_ROW);
  const height = (layer.outputs / 4) * rowsEach;
  const packed = new Float32Array(4 * width * height);
  for (let group = 0; group < layer.outputs / 4; group++) {
    const from = group * inGroups * 144;
    packed.set(layer.filters.subarray(from, from + inGroups * 144), group * rowsEach * width * 4);
  }
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, width, height);
  gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.FLOAT, packed);
  nearest(gl, gl.TEXTURE_2D);
  return texture;
}

function nearest(gl, target) {
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
    gl.texParameteri(target, side, gl.NEAREST);
  }
}

/** Return values as a whole number of vectors of 4. */
function padded(values) {
  if (values.length % 4 === 0) return values;
  const whole = new Float32Array(4 * Math.ceil(values.length / 4));
  whole.set(values);
  return whole;
}
