// The generator's shape and its weights as the renderers take them: filters packed in blocks of
// 4 x 4 channels, and the factor of each output channel that a style gives.
//
// Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958; codec/sglat/networks/stylegan2.py.

const ACTIVATION_GAIN = Math.SQRT2; // keeps the variance that leaky ReLU takes away
const DEMODULATION_EPSILON = 1e-8;

/**
 * Return the style table: conv, torgb at 4 px, then conv_up, conv, torgb each.
 * `channels` are the feature channels at 4, 8, 16, ... pixels.
 */
export function styleTable(channels) {
  const table = [];
  let before = channels[0];
  channels.forEach((width, level) => {
    const size = 4 << level;
    if (level > 0) table.push({ kind: "conv_up", size, inputs: before, outputs: width });
    table.push({ kind: "conv", size, inputs: width, outputs: width });
    table.push({ kind: "torgb", size, inputs: width, outputs: 3 });
    before = width;
  });
  return table.map((entry, index) => ({ ...entry, index }));
}

/** Return how many entries of a style table a picture of `rung` pixels needs. */
export function entriesUpTo(rung) {
  return 3 * Math.log2(rung / 4) + 2;
}

/**
 * Return the layers of a generator, ready for a renderer.
 *
 * `weights` holds `const` and `layers.I.weight`, `layers.I.bias` of the tuned generator, by name.
 * A convolution becomes `{filters, energy, bias}`: filters as [O / 4][I / 4][9 taps][4 inputs]
 * vectors of 4 outputs, scaled; energy [O, I] for demodulation; bias with its activation gain.
 */
export function prepare(channels, weights) {
  return styleTable(channels).map((entry) => {
    const weight = tensor(weights, `layers.${entry.index}.weight`);
    const bias = tensor(weights, `layers.${entry.index}.bias`);
    const taps = entry.kind === "torgb" ? 1 : 9;
    const { inputs, outputs } = entry;
    if (weight.length !== inputs * outputs * taps || bias.length !== outputs) {
      throw new Error(`layer ${entry.index}: expected ${outputs} x ${inputs} filters`);
    }
    const scale = 1 / Math.sqrt(inputs * taps);
    if (taps === 1) return { ...entry, filters: weight.map((w) => w * scale), bias };
    return {
      ...entry,
      filters: packFilters(weight, inputs, outputs, scale),
      energy: filterEnergy(weight, inputs, outputs, scale),
      bias: bias.map((b) => b * ACTIVATION_GAIN),
    };
  });
}

/** Return what multiplies each output channel of a convolution under a style [I]. */
export function outputGains(layer, style) {
  const { inputs, outputs, energy } = layer;
  const squares = new Float32Array(inputs);
  for (let i = 0; i < inputs; i++) squares[i] = style[i] * style[i];
  const gains = new Float32Array(outputs);
  for (let o = 0, at = 0; o < outputs; o++) {
    let sum = DEMODULATION_EPSILON;
    for (let i = 0; i < inputs; i++) sum += squares[i] * energy[at++];
    gains[o] = ACTIVATION_GAIN / Math.sqrt(sum);
  }
  return gains;
}

/** Return the colour filters of a torgb layer with a style in them, [3, I]. */
export function styledColours(layer, style) {
  const { inputs, filters } = layer;
  const styled = new Float32Array(3 * inputs);
  for (let at = 0; at < styled.length; at++) styled[at] = filters[at] * style[at % inputs];
  return styled;
}

/** Return the constant input [C, 4, 4] as [C / 4][4 rows][4 columns] vectors of 4 channels. */
export function packConst(weights, width) {
  const values = tensor(weights, "const");
  if (values.length !== 16 * width) throw new Error(`const: expected ${width} channels`);
  const packed = new Float32Array(values.length);
  for (let c = 0; c < width; c++) {
    for (let p = 0; p < 16; p++) packed[((c >> 2) * 16 + p) * 4 + (c & 3)] = values[c * 16 + p];
  }
  return packed;
}

function tensor(weights, name) {
  const found = weights.get(name);
  if (!found) throw new Error(`the weights have no ${name}`);
  return found;
}

function packFilters(weight, inputs, outputs, scale) {
  const packed = new Float32Array(weight.length);
  const inputGroups = inputs >> 2;
  for (let o = 0, from = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      const block = ((o >> 2) * inputGroups + (i >> 2)) * 9;
      for (let tap = 0; tap < 9; tap++) {
        packed[((block + tap) * 4 + (i & 3)) * 4 + (o & 3)] = weight[from++] * scale;
      }
    }
  }
  return packed;
}

function filterEnergy(weight, inputs, outputs, scale) {
  const energy = new Float32Array(inputs * outputs);
  for (let at = 0, from = 0; at < energy.length; at++) {
    let sum = 0;
    for (let tap = 0; tap < 9; tap++, from++) sum += weight[from] * weight[from];
    energy[at] = sum * scale * scale;
  }
  return energy;
}
