// Synthesis in compute shaders, in 32-bit floats.

import { entriesUpTo, outputGains, packConst, prepare, styledColours } from "./generator.js";
import { COLOURS, CONVOLVE, GROUP, SHOW, UPSAMPLE } from "./webgpu_shaders.js";

const PARAMETER_BYTES = 256; // uniform offsets are multiples of it

/**
 * Return a renderer, or null where the browser cannot do it.
 *
 * `await render(styles, rung)` returns a picture of `rung` pixels, an ImageData. `onLost` is called
 * when the device is gone. `needsHardware` refuses drawing in software.
 */
export async function create({ channels, weights, needsHardware = false, onLost = () => {} }) {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter().catch(() => null);
  const { isFallbackAdapter, architecture } = adapter?.info ?? {};
  if (needsHardware && (isFallbackAdapter || architecture === "swiftshader")) return null;
  const device = await adapter?.requestDevice().catch(() => null);
  if (!device) return null;
  device.lost.then(({ reason }) => reason !== "destroyed" && onLost());
  device.pushErrorScope("validation");
  const renderer = new Renderer(device, channels, weights);
  const fault = await device.popErrorScope();
  if (fault) throw new Error(`WebGPU: ${fault.message}`);
  return renderer;
}

class Renderer {
  kind = "WebGPU";

  constructor(device, channels, weights) {
    this.device = device;
    const pipeline = (code) =>
      device.createComputePipeline({
        layout: "auto",
        compute: { module: device.createShaderModule({ code }), entryPoint: "main" },
      });
    this.pipelines = {
      conv: pipeline(CONVOLVE),
      up: pipeline(UPSAMPLE),
      torgb: pipeline(COLOURS),
      show: pipeline(SHOW),
    };
    this.layers = prepare(channels, weights);
    this.#layOut(packConst(weights, channels[0]));
    this.spare = []; // buffers that pictures are read from
  }

  /** Return the picture of a list of style vectors at a resolution. */
  async render(styles, rung) {
    const { device } = this;
    const count = entriesUpTo(rung);
    for (let index = 0; index < count; index++) this.#place(this.layers[index], styles[index]);
    device.queue.writeBuffer(this.changing, 0, this.values);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const steps = this.layers.slice(0, count).flatMap((layer) => layer.steps);
    for (const { pipeline, bindings, groups } of [...steps, this.layers[count - 1].last]) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindings);
      pass.dispatchWorkgroups(groups);
    }
    pass.end();
    const { image, size } = this.layers[count - 1];
    const copy = this.#copyOf(4 * size ** 2);
    encoder.copyBufferToBuffer(image, 0, copy, 0, 4 * size ** 2);
    device.queue.submit([encoder.finish()]);
    await copy.mapAsync(GPUMapMode.READ, 0, 4 * size ** 2);
    const bytes = new Uint8ClampedArray(copy.getMappedRange(0, 4 * size ** 2).slice(0));
    copy.unmap();
    this.spare.push(copy);
    return new ImageData(bytes, size, size);
  }

  destroy() {
    this.device.destroy();
  }

  /** Make the buffers and bindings of all layers, once. */
  #layOut(input) {
    const { device, layers, pipelines } = this;
    const vectors = layers.map(({ kind, inputs, outputs }) =>
      kind === "torgb" ? 1 + (3 * inputs) / 4 : (inputs + 2 * outputs) / 4,
    );
    let first = 0;
    layers.forEach((layer, index) => {
      layer.first = first;
      first += vectors[index];
    });
    this.values = new Float32Array(4 * first);
    this.changing = this.#buffer(this.values);
    this.parameters = device.createBuffer({
      size: 2 * layers.length * PARAMETER_BYTES,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    let x = this.#buffer(input);
    let image = null;
    for (const layer of layers) {
      const { size, outputs, kind } = layer;
      if (kind === "torgb") {
        image = this.#colourStep(layer, x, image);
        continue;
      }
      this.values.set(layer.bias, 4 * layer.first + layer.inputs + outputs);
      const isUp = kind === "conv_up";
      const small = isUp ? size / 2 : size;
      const filters = this.#buffer(layer.filters);
      layer.filters = null;
      const slope = isUp ? 1 : 0.2; // upsampling comes before activation
      const out = this.#features(small, outputs);
      const uniform = this.#parameter(2 * layer.index, layer, small, slope, 0);
      const threads = (outputs / 4) * (small / 2) ** 2;
      layer.steps = [
        this.#step(pipelines.conv, [x, filters, this.changing, uniform, out], threads),
      ];
      x = out;
      if (!isUp) continue;
      const larger = this.#features(size, outputs);
      const doubled = this.#parameter(2 * layer.index + 1, layer, size, 0.2, 0);
      layer.steps.push(this.#step(pipelines.up, [x, doubled, larger], (outputs / 4) * size ** 2));
      x = larger;
    }
  }

  #colourStep(layer, x, image) {
    const { pipelines } = this;
    const { size } = layer;
    const colours = this.#features(size, 4);
    const uniform = this.#parameter(2 * layer.index, layer, size, 1, image ? 1 : 0);
    const bindings = [x, image ?? x, this.changing, uniform, colours];
    layer.image = this.#features(size, 1); // bytes
    layer.steps = [this.#step(pipelines.torgb, bindings, size ** 2)];
    layer.last = this.#step(pipelines.show, [colours, uniform, layer.image], size ** 2);
    return colours;
  }

  /** Write what a style changes of a layer to the values that the shaders read. */
  #place(layer, style) {
    const at = 4 * layer.first;
    if (layer.kind === "torgb") {
      this.values.set(layer.bias, at);
      this.values.set(styledColours(layer, style), at + 4);
      return;
    }
    this.values.set(style, at);
    this.values.set(outputGains(layer, style), at + layer.inputs);
  }

  #copyOf(size) {
    const found = this.spare.findIndex((buffer) => buffer.size >= size);
    if (found >= 0) return this.spare.splice(found, 1)[0];
    const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
    return this.device.createBuffer({ size, usage });
  }

  #step(pipeline, resources, threads) {
    const bindings = bind(this.device, pipeline, resources);
    return { pipeline, bindings, groups: Math.ceil(threads / GROUP) };
  }

  /** Write a layer's parameters at a place and return them as a binding. */
  #parameter(place, layer, size, slope, hasImage) {
    const { inputs, outputs, first } = layer;
    const data = new DataView(new ArrayBuffer(32));
    [size, inputs / 4, Math.ceil(outputs / 4), first].forEach((value, at) =>
      data.setUint32(4 * at, value, true),
    );
    data.setFloat32(16, slope, true);
    data.setUint32(20, hasImage, true);
    const offset = place * PARAMETER_BYTES;
    this.device.queue.writeBuffer(this.parameters, offset, data.buffer);
    return { buffer: this.parameters, offset, size: 32 };
  }

  #features(size, channels) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
    return this.device.createBuffer({ size: 4 * channels * size ** 2, usage });
  }

  #buffer(values) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const buffer = this.device.createBuffer({ size: values.byteLength, usage });
    this.device.queue.writeBuffer(buffer, 0, values);
    return buffer;
  }
}

function bind(device, pipeline, resources) {
  return device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: resources.map((resource, binding) => ({
      binding,
      resource: resource.buffer ? resource : { buffer: resource },
    })),
  });
}
