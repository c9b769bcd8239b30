// Head pose as a latent edit: the first rows of W+ flow to another yaw and pitch.
//
// A continuous flow of gated linear layers, solved by Runge-Kutta steps of fixed size: forward under
// the pose a latent has, backward under the one it shall have.
// Source: StyleFlow (Abdal et al. 2021, https://arxiv.org/abs/2008.02401); layers after Grathwohl et
// al. 2019, https://arxiv.org/abs/1810.01367.

const DEGREES = 20; // conditions enter the network as degrees / 20

/** The flow of a bundle; all arrays are Float64Array, which JavaScript computes in. */
export class PoseFlow {
  constructor(bundle) {
    const { rows, steps, hidden, style_dim: width } = bundle.poseFlow;
    this.rows = rows;
    this.steps = steps;
    this.width = width;
    const widths = [width, ...hidden, width];
    this.layers = hidden.concat(width).map((outputs, at) => {
      const get = (name) => Float64Array.from(bundle.tensor(`pose_flow.layers.${at}.${name}`));
      return {
        inputs: widths[at],
        outputs,
        weight: get("linear.weight"),
        bias: get("linear.bias"),
        gateWeight: get("gate.weight"),
        gateBias: get("gate.bias"),
        shiftWeight: get("shift.weight"),
        out: new Float64Array(rows * outputs),
      };
    });
  }

  /** Return the first rows of a latent without their pose, `[rows · width]`; yaw and pitch in degrees. */
  poseFree(ws, yaw, pitch) {
    return this._integrate(ws.slice(0, this.rows * this.width), yaw, pitch, false);
  }

  /** Return the rows at a pose, of what `poseFree` returned. */
  posed(poseFree, yaw, pitch) {
    return this._integrate(poseFree, yaw, pitch, true);
  }

  _integrate(start, yaw, pitch, isBackward) {
    const x = Float64Array.from(start);
    const step = (isBackward ? -1 : 1) / this.steps;
    const time = (at) => (isBackward ? 1 - at / (2 * this.steps) : at / (2 * this.steps));
    let begin = this._modulation(time(0), yaw, pitch);
    const moved = new Float64Array(x.length);
    const along = (k, share) => {
      for (let at = 0; at < x.length; at++) moved[at] = x[at] + share * k[at];
      return moved;
    };
    for (let at = 0; at < this.steps; at++) {
      const middle = this._modulation(time(2 * at + 1), yaw, pitch);
      const end = this._modulation(time(2 * at + 2), yaw, pitch);
      const k1 = this._velocity(x, begin).slice();
      const k2 = this._velocity(along(k1, step / 2), middle).slice();
      const k3 = this._velocity(along(k2, step / 2), middle).slice();
      const k4 = this._velocity(along(k3, step), end);
      for (let i = 0; i < x.length; i++) x[i] += (step / 6) * (k1[i] + 2 * (k2[i] + k3[i]) + k4[i]);
      begin = end;
    }
    return x;
  }

  /** Return each layer's gate and shift at a time under a pose. */
  _modulation(time, yaw, pitch) {
    const context = [time, yaw / DEGREES, pitch / DEGREES];
    return this.layers.map(({ outputs, gateWeight, gateBias, shiftWeight }) => {
      const gate = new Float64Array(outputs);
      const shift = new Float64Array(outputs);
      for (let o = 0; o < outputs; o++) {
        let sum = gateBias[o];
        for (let c = 0; c < 3; c++) {
          sum += gateWeight[3 * o + c] * context[c];
          shift[o] += shiftWeight[3 * o + c] * context[c];
        }
        gate[o] = 1 / (1 + Math.exp(-sum));
      }
      return { gate, shift };
    });
  }

  /** Return dx/dt of rows; the array is used again by the next call. */
  _velocity(x, modulation) {
    let input = x;
    this.layers.forEach((layer, at) => {
      if (at) for (let i = 0; i < input.length; i++) input[i] = Math.tanh(input[i]);
      squash(input, layer, modulation[at], this.rows);
      input = layer.out;
    });
    return input;
  }
}

/** Compute one gated layer for all rows: two outputs of three rows at a time, where they divide. */
function squash(x, layer, modulation, rows) {
  const { inputs, outputs, weight } = layer;
  const isBlocked = rows % 3 === 0 && outputs % 2 === 0;
  if (isBlocked) multiplyBlocks(x, weight, layer.out, rows, inputs, outputs);
  else multiply(x, weight, layer.out, rows, inputs, outputs);
  const { gate, shift } = modulation;
  for (let at = 0; at < layer.out.length; at++) {
    const o = at % outputs;
    layer.out[at] = (layer.out[at] + layer.bias[o]) * gate[o] + shift[o];
  }
}

/** Set `out` `[R, O]` to x `[R, I]` times the transposed weight `[O, I]`. */
function multiply(x, weight, out, rows, inputs, outputs) {
  for (let at = 0; at < rows * outputs; at++) {
    const [from, base] = [Math.floor(at / outputs) * inputs, (at % outputs) * inputs];
    let sum = 0;
    for (let i = 0; i < inputs; i++) sum += weight[base + i] * x[from + i];
    out[at] = sum;
  }
}

/** The same with each number used for six sums, twice as fast. */
function multiplyBlocks(x, weight, out, rows, inputs, outputs) {
  for (let o = 0; o < outputs; o += 2) {
    const first = o * inputs;
    const second = first + inputs;
    for (let row = 0; row < rows; row += 3) {
      const a = row * inputs;
      const b = a + inputs;
      const c = b + inputs;
      let a1 = 0;
      let b1 = 0;
      let c1 = 0;
      let a2 = 0;
      let b2 = 0;
      let c2 = 0;
      for (let i = 0; i < inputs; i++) {
        const u = weight[first + i];
        const v = weight[second + i];
        a1 += u * x[a + i];
        b1 += u * x[b + i];
        c1 += u * x[c + i];
        a2 += v * x[a + i];
        b2 += v * x[b + i];
        c2 += v * x[c + i];
      }
      const at = row * outputs + o;
      out[at] = a1;
      out[at + 1] = a2;
      out[at + outputs] = b1;
      out[at + outputs + 1] = b2;
      out[at + 2 * outputs] = c1;
      out[at + 2 * outputs + 1] = c2;
    }
  }
}
