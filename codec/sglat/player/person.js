// A person ready to be rendered: weights with the deltas applied, and motion to style vectors.

import { MismatchError } from "./bits/errors.js";
import { toHex } from "./bits/fields.js";
import { latentOffset, weightDeltas, weightResolution } from "./bits/identity.js";
import { FIRST_CONTROL, MOTION_CHANNELS } from "./bits/limits.js";
import { applyDeltas } from "./deltas.js";
import { PoseFlow } from "./pose_flow.js";

const CONTROLS = MOTION_CHANNELS - FIRST_CONTROL;
const STEP_MILLISECONDS = 12; // of work between two pauses

/** The look of one file on the weights of a bundle. */
export class Person {
  /**
   * @param {import("./weights.js").Bundle} bundle
   * @param {import("./decoder.js").File} file with an identity
   * @throws {MismatchError} the file was made for other weights, or a delta does not fit
   */
  constructor(bundle, file) {
    for (const _ of this._build(bundle, file));
  }

  /** Return a person as the constructor does, with pauses in which the page can draw. */
  static async inSteps(bundle, file) {
    const person = Object.create(Person.prototype);
    let began = performance.now();
    for (const _ of person._build(bundle, file)) {
      if (performance.now() - began < STEP_MILLISECONDS) continue;
      await new Promise((resume) => setTimeout(resume));
      began = performance.now();
    }
    return person;
  }

  *_build(bundle, file) {
    checkWeights(bundle, file.header);
    if (!file.identity) throw new MismatchError("no-identity", "the identity lies in another file: open that file too");
    this.bundle = bundle;
    this.identity = file.identity;
    const deltas = weightDeltas(this.identity.layers);
    const names = bundle.generatorNames(file.header.resolution);
    /** Weights by name with the deltas applied: `const`, `layers.N.weight`, `.bias`, `.affine.weight`, `.affine.bias`. */
    this.tunedWeights = new Map(names.map((name) => [name, bundle.tensor(name)]));
    const used = new Set(names);
    yield* applyDeltas(this.tunedWeights, deltas, (name) => {
      const isThere = used.has(name) || (!bundle.has(name) && bundle.shape(name));
      return isThere ? bundle.shape(name) : null;
    });
    /** Resolutions that the person can be rendered at, ascending. */
    this.rungs = heldRungs(bundle, file.header.resolution, deltas);
    /** Layers up to the last of these. */
    this.styleTable = bundle.tableUpTo(this.rungs.at(-1));
    /** Yaw, pitch and controls of the ID frame, `[34]`. */
    this.neutral = this.identity.neutral;
    /** Neutral of the motion's source, `[34]`; null: the person's own. */
    this.driver = file.motionNeutral;
    this._flow = new PoseFlow(bundle);
    this._controls = bundle.tensor("controls.matrix");
    this._prepare();
  }

  _prepare() {
    const { styleDim, controls } = this.bundle;
    const mean = this.bundle.tensor("w_avg");
    const offset = latentOffset(this.identity.layers);
    const ws = Float64Array.from(offset, (value, at) => Math.fround(value + mean[at % styleDim]));
    const [yaw, pitch] = this.neutral;
    this._poseFree = this._flow.poseFree(ws, yaw, pitch);
    this._pose = [NaN, NaN]; // of the styles below
    // Rows that the flow leaves alone give the same style in every frame.
    this._styles = this.styleTable.map((entry) => this._affine(entry, ws, entry.wsIndex * styleDim));
    const places = controls.style_widths.map((_, at, all) => all.slice(0, at).reduce((sum, w) => sum + w, 0));
    const size = controls.style_widths.reduce((sum, width) => sum + width, 0);
    this._edits = this.styleTable
      .filter((entry) => entry.index < places.length)
      .map(({ index, channels }) => ({ index, channels, place: places[index], size }));
  }

  /** Return the affine output of a row of W+, `[C]`. */
  _affine({ index, channels }, ws, from) {
    const { styleDim } = this.bundle;
    const weight = this.tunedWeights.get(`layers.${index}.affine.weight`);
    const bias = this.tunedWeights.get(`layers.${index}.affine.bias`);
    const gain = 1 / Math.sqrt(styleDim);
    const style = new Float32Array(channels);
    for (let channel = 0; channel < channels; channel++) {
      let sum = 0;
      for (let at = 0; at < styleDim; at++) sum += weight[channel * styleDim + at] * ws[from + at];
      style[channel] = sum * gain + bias[channel];
    }
    return style;
  }

  /**
   * Return a driver's values as values of this person, `[34]`.
   *
   * `relative` carries over the difference from the driver's neutral to this person's; `absolute`, and
   * a driver of null, take the values as they are.
   */
  retarget(values, { transfer = "relative", driver = this.driver } = {}) {
    if (driver === null || transfer === "absolute") return Float32Array.from(values);
    return Float32Array.from(values, (value, at) => value + Math.fround(this.neutral[at] - driver[at]));
  }

  /**
   * Return the style vectors of a frame, one Float32Array for each entry of `styleTable`.
   *
   * @param {Float32Array} values yaw, pitch (degrees) and 32 controls as the file has them
   * @param {{transfer?: "relative" | "absolute", driver?: ?Float32Array}} options as for `retarget`
   */
  styles(values, options) {
    const motion = this.retarget(values, options);
    this._turn(motion[0], motion[1]);
    const offsets = new Float64Array(CONTROLS);
    for (let at = 0; at < CONTROLS; at++) {
      offsets[at] = Math.fround(motion[FIRST_CONTROL + at] - this.neutral[FIRST_CONTROL + at]);
    }
    const styles = this._styles.map((style) => style.slice());
    for (const { index, channels, place, size } of this._edits) this._edit(styles[index], offsets, channels, place, size);
    return styles;
  }

  /** Move one style vector along the controls. */
  _edit(style, offsets, channels, place, size) {
    for (let channel = 0; channel < channels; channel++) {
      let sum = 0;
      for (let at = 0, from = place + channel; at < CONTROLS; at++, from += size) {
        sum += offsets[at] * this._controls[from];
      }
      style[channel] += sum;
    }
  }

  /** Compute the styles of the turned rows, unless they have that pose already. */
  _turn(yaw, pitch) {
    if (this._pose[0] === yaw && this._pose[1] === pitch) return;
    const turned = this._flow.posed(this._poseFree, yaw, pitch);
    const { styleDim } = this.bundle;
    for (const entry of this.styleTable) {
      if (entry.wsIndex >= this._flow.rows) continue;
      this._styles[entry.index] = this._affine(entry, turned, entry.wsIndex * styleDim);
    }
    this._pose = [yaw, pitch];
  }
}

/** Compare a file's ids with the weights'; raises `wrong-decoder`, `wrong-resolution`. */
export function checkWeights(bundle, header) {
  const compare = (what, found, own) => {
    if (found === own) return;
    const short = (id) => (id ? `${id.slice(0, 16)}…` : "none");
    throw new MismatchError(
      "wrong-decoder",
      `the file was made with bundle "${header.bundle}", ${what} ${short(found)}; this page has "${bundle.name}", ${what} ${short(own)}`,
    );
  };
  compare("decoder", toHex(header.decoderId), bundle.decoderId);
  if (!bundle.rungs.includes(header.resolution)) {
    throw new MismatchError("wrong-resolution", `this page renders ${bundle.rungs.join(", ")} px, the file has ${header.resolution} px`);
  }
  const needsUpper = header.resolution > bundle.baseResolution;
  compare("upper layers", header.upperId && toHex(header.upperId), needsUpper ? bundle.upperId : null);
  const rows = bundle.tableUpTo(header.resolution).at(-1).wsIndex + 1;
  if (header.numWs !== rows || header.wDim !== bundle.styleDim) {
    throw new MismatchError("wrong-latent", `expected a latent of ${rows} x ${bundle.styleDim}, found ${header.numWs} x ${header.wDim}`);
  }
}

/** Return the rungs whose layers have deltas, and the lowest: others would add detail that is not the person's. */
function heldRungs(bundle, resolution, deltas) {
  const tuned = new Set(deltas.map((delta) => weightResolution(delta.name)));
  const [lowest, ...upper] = bundle.rungs.filter((rung) => rung <= resolution);
  const last = upper.findIndex((rung) => !tuned.has(rung));
  return [lowest, ...(last < 0 ? upper : upper.slice(0, last))];
}
