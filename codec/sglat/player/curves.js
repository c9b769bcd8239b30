// The strip of 34 curves under the picture: group colours, zoom, hover, and the place that plays.

import { fitCanvas } from "./dom.js";

const SLICE_MILLISECONDS = 8; // of reading frames between two pauses
const MAX_COLUMNS = 1200; // frames read for one view
const LEAST_FRAMES = 20; // of a zoomed view
const POSE_SIGMA = [12, 8]; // degrees of yaw and pitch that fill a lane as a control's deviation does
const HEIGHT_SIGMAS = 8; // of a curve, that fill the strip
export const GROUPS = ["pose", "mouth", "chin", "eyes", "brows", "gaze"];

/** One strip on a canvas. */
export class Curves {
  /** @param labels names of the 34 values @param groups of each @param sigma of each */
  constructor(canvas, { labels, groups, sigma, onSeek, onHover }) {
    Object.assign(this, { canvas, labels, groups, onSeek, onHover });
    this.sigma = sigma.map((value, at) => POSE_SIGMA[at] ?? value);
    this.hidden = new Set();
    this.file = null;
    this.first = 0;
    this.last = 0;
    this.playing = 0;
    this.hovered = null;
    this.reading = 0;
    this.columns = [];
    canvas.addEventListener("pointermove", (event) => this.#point(event));
    canvas.addEventListener("pointerleave", () => this.#leave());
    canvas.addEventListener("click", (event) => onSeek(this.#frameAt(event)));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#read()).observe(canvas);
  }

  /** Show a file's motion from its start to its end. */
  show(file) {
    this.file = file;
    this.first = 0;
    this.last = Math.max(0, file.frameCount - 1);
    this.#read();
  }

  /** Show or hide a group. */
  toggle(group, isShown) {
    if (isShown) this.hidden.delete(group);
    else this.hidden.add(group);
    this.draw();
  }

  /** Mark the frame that is on the stage. */
  mark(index) {
    this.playing = index;
    const span = this.last - this.first;
    if (index < this.first || index > this.last) {
      this.#view(Math.min(Math.max(0, index), this.file.frameCount - 1 - span), span);
    }
    this.draw();
  }

  /** Zoom by a factor around a share of the view, or the playing frame. */
  zoom(factor, around = null) {
    if (!this.file) return;
    const most = this.file.frameCount - 1;
    const span = Math.min(most, Math.max(Math.min(LEAST_FRAMES, most), (this.last - this.first) / factor));
    const share = around ?? 0.5;
    const centre = around === null ? this.playing : this.first + share * (this.last - this.first);
    this.#view(centre - share * span, span);
  }

  #view(first, span) {
    const most = this.file.frameCount - 1;
    this.first = Math.round(Math.min(Math.max(0, first), most - span));
    this.last = Math.round(Math.min(most, this.first + span));
    this.#read();
  }

  #wheel(event) {
    if (!this.file || !(event.ctrlKey || event.metaKey || event.altKey)) return;
    event.preventDefault();
    this.zoom(2 ** (-event.deltaY / 200), this.#share(event));
  }

  #share(event) {
    const { left, width } = this.canvas.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - left) / width, 0), 1);
  }

  #frameAt(event) {
    return Math.round(this.first + this.#share(event) * (this.last - this.first));
  }

  #point(event) {
    if (!this.file?.frameCount) return;
    this.hovered = this.#frameAt(event);
    const { top, height } = this.canvas.getBoundingClientRect();
    const wanted = (event.clientY - top) / height;
    const { values, seconds } = this.file.frame(this.hovered);
    const near = this.labels
      .map((label, at) => ({ label, at, value: values[at] }))
      .filter(({ at }) => !this.hidden.has(this.groups[at]))
      .map((one) => ({ ...one, distance: Math.abs(this.#height(one.value, one.at) - wanted) }))
      .sort((a, b) => a.distance - b.distance)
      .slice(0, 3);
    this.onHover({ index: this.hovered, seconds, near });
    this.draw();
  }

  #leave() {
    this.hovered = null;
    this.onHover(null);
    this.draw();
  }

  /** Read the frames of the view, a slice at a time. */
  async #read() {
    const { file } = this;
    if (!file?.frameCount) return;
    const mine = ++this.reading;
    const count = Math.min(this.last - this.first + 1, MAX_COLUMNS);
    const columns = [];
    let began = performance.now();
    for (let at = 0; at < count; at++) {
      const share = count > 1 ? at / (count - 1) : 0;
      const index = Math.round(this.first + share * (this.last - this.first));
      columns.push({ index, values: file.frame(index).values });
      if (performance.now() - began < SLICE_MILLISECONDS) continue;
      this.columns = columns;
      this.draw();
      await new Promise((resume) => setTimeout(resume));
      if (mine !== this.reading) return;
      began = performance.now();
    }
    this.columns = columns;
    this.draw();
  }

  /** Return a value's height as a share of the strip from its top. */
  #height(value, at) {
    return 0.5 - value / (HEIGHT_SIGMAS * this.sigma[at]);
  }

  draw() {
    const { canvas, columns } = this;
    const { width, height, scale } = fitCanvas(canvas);
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, width, height);
    const span = Math.max(1, this.last - this.first);
    const xOf = (index) => ((index - this.first) / span) * (width - 1);
    context.lineWidth = scale;
    context.globalAlpha = 0.75;
    this.labels.forEach((_, at) => {
      if (this.hidden.has(this.groups[at])) return;
      context.strokeStyle = style.getPropertyValue(`--${this.groups[at]}`);
      context.beginPath();
      for (const { index, values } of columns) {
        context.lineTo(xOf(index), this.#height(values[at], at) * height);
      }
      context.stroke();
    });
    context.globalAlpha = 1;
    const line = (index, colour) => {
      context.fillStyle = style.getPropertyValue(colour);
      context.fillRect(xOf(index) - scale, 0, 2 * scale, height);
    };
    if (this.hovered !== null) line(this.hovered, "--quiet");
    line(this.playing, "--accent");
  }
}
