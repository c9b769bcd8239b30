// Sliders for yaw, pitch and the 32 controls, added to the motion or alone.

import { el, fill } from "./dom.js";

const POSE_RANGE = { yaw: 40, pitch: 30 }; // degrees
const SIGMAS = 3; // of a control, either way
const STEPS = 60; // of a slider, either way

/** Holds what the sliders say; `onChange` is called after each change. */
export class Sliders {
  constructor(node, { labels, groups, sigma, onChange }) {
    this.offsets = new Float32Array(labels.length);
    /** Without the motion: the neutral face plus the sliders. */
    this.isAlone = false;
    this.inputs = [];
    this.names = labels;
    this.onChange = onChange;
    const parts = new Map();
    labels.forEach((label, at) => {
      const most = POSE_RANGE[label] ?? SIGMAS * sigma[at];
      if (!parts.has(groups[at])) parts.set(groups[at], []);
      parts.get(groups[at]).push(this.#row(label, at, most));
    });
    fill(
      node,
      ...[...parts].map(([group, rows]) =>
        el("fieldset", { class: `group-${group}` }, el("legend", {}, group), ...rows),
      ),
    );
  }

  get isUsed() {
    return this.isAlone || this.offsets.some((value) => value !== 0);
  }

  /** One line of what was done, for a file's record. */
  get text() {
    const base = this.isAlone ? "the neutral face, " : "";
    const moved = this.names.filter((_, at) => this.offsets[at] !== 0);
    return `player: ${base}${moved.length ? `added to ${moved.join(", ")}` : "held still"}`.slice(0, 200);
  }

  /** Return values with the sliders' changes. */
  change(values, neutral) {
    const base = this.isAlone ? neutral : values;
    return Float32Array.from(base, (value, at) => value + this.offsets[at]);
  }

  reset() {
    this.offsets.fill(0);
    for (const { input, output } of this.inputs) {
      input.value = 0;
      output.textContent = "0";
    }
    this.onChange();
  }

  #row(label, at, most) {
    const id = `slider-${at}`;
    const output = el("output", { for: id }, "0");
    const input = el("input", {
      id,
      type: "range",
      min: -most,
      max: most,
      step: most / STEPS,
      value: 0,
      input: () => this.#set(at, input, output),
      dblclick: () => {
        input.value = 0;
        this.#set(at, input, output);
      },
    });
    this.inputs.push({ input, output });
    return el("div", { class: "slider" }, el("label", { for: id }, label), input, output);
  }

  #set(at, input, output) {
    this.offsets[at] = Math.abs(input.valueAsNumber) < 1e-6 ? 0 : input.valueAsNumber;
    output.textContent = this.offsets[at].toFixed(at < 2 ? 1 : 2);
    this.onChange();
  }
}
