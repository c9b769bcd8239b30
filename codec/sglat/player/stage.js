// Playing: which frame is due, drawing it in time, and the clock, which is the sound's if there is one.

import { paintOnto } from "./backdrop.js";
import { createRenderer, paint } from "./renderers.js";
import { Sound, soundFault } from "./sound.js";

const FIRST_GUESS_MILLISECONDS = 30; // a picture takes, before one was drawn
const STEP_UP = 1.8; // times the work of a rung that the next one takes
const STILL_MILLISECONDS = 1500; // a paused picture may take at a higher resolution
const LEARNING = 0.3; // share of the last picture's time in the estimate
const SLACK = 1.25; // of the estimate, so that most pictures are ready in time
const KEPT_OFFSETS = 500;

/** Shows a person moving; `onShown(frame)` is called for each picture, `onState()` for the rest. */
export class Stage {
  constructor(canvas, { onShown, onState, onFault, wanted }) {
    Object.assign(this, { canvas, onShown, onState, onFault, wanted });
    this.losses = 0;
    this.person = null;
    this.motion = null;
    this.sound = null;
    this.soundNote = "";
    this.isPlaying = false;
    this.isLooping = false;
    this.isMuted = false;
    this.rate = 1;
    /** Resolution that was asked for; 0: the best that is drawn in time. */
    this.wantedRung = 0;
    this.costs = new Map(); // milliseconds that a picture takes, by resolution
    this.transfer = "relative";
    /** Written into every picture. */
    this.label = "";
    /** Bitmap behind the face; null: the crop alone. */
    this.plate = null;
    /** Returns the values that are drawn, of those of a frame. */
    this.change = (values) => values;
    /** Seconds by which pictures were shown after their sound, the last ones. */
    this.offsets = [];
    this.position = 0; // seconds, while not playing
    this.turn = 0; // counts starts and stops; an older loop ends
    this.isBusy = false;
    this.isStale = false;
  }

  /** Take a person; `file` may be the motion too. */
  async show(person) {
    const channels = person.bundle.channels.slice(0, Math.log2(person.rungs.at(-1) / 4) + 1);
    const old = this.renderer;
    const weights = person.tunedWeights;
    const onLost = () => this.#recover(person).catch(this.onFault);
    this.ready = createRenderer({ channels, weights, onLost }, this.wanted);
    this.renderer = await this.ready;
    old?.destroy();
    this.person = person;
    this.costs.clear();
    if (!person.rungs.includes(this.wantedRung)) this.wantedRung = 0;
  }

  /** Take a file's motion and sound; its driver is null for the person's own. */
  async drive(motion, driver) {
    this.pause();
    this.sound?.close();
    this.sound = null;
    this.motion = motion;
    this.driver = driver;
    this.position = motion.startSeconds;
    this.soundNote = motion.audio ? await soundFault(motion.audio.format) : "";
    this.hasSound = motion.audio !== null && !this.soundNote;
  }

  /** Seconds in the file now. */
  get now() {
    if (!this.isPlaying) return this.position;
    const heard = this.sound?.seconds ?? null;
    const seconds = heard ?? this.started.media + ((performance.now() - this.started.at) / 1000) * this.rate;
    return Math.min(seconds, this.endSeconds);
  }

  get endSeconds() {
    return this.motion.startSeconds + this.motion.durationSeconds;
  }

  get frameSeconds() {
    return this.motion.durationSeconds / Math.max(1, this.motion.frameCount);
  }

  /** Resolution at which a picture is drawn within a time; the lowest before any was drawn. */
  rungWithin(milliseconds) {
    if (this.wantedRung) return this.wantedRung;
    const fitting = this.person.rungs.filter((rung) => this.costOf(rung) <= milliseconds);
    return fitting.at(-1) ?? this.person.rungs[0];
  }

  /** Resolution while playing. */
  get rung() {
    return this.rungWithin((1000 * this.frameSeconds) / this.rate / SLACK);
  }

  /** Milliseconds that a picture takes; a guess from the rung below where none was drawn. */
  costOf(rung) {
    const { rungs } = this.person;
    if (this.costs.has(rung)) return this.costs.get(rung);
    if (!this.costs.size) return rung === rungs[0] ? FIRST_GUESS_MILLISECONDS : Infinity;
    const below = rungs[rungs.indexOf(rung) - 1];
    return below ? STEP_UP * this.costOf(below) : FIRST_GUESS_MILLISECONDS;
  }

  async play() {
    if (!this.motion || this.isPlaying) return;
    const turn = ++this.turn;
    if (this.position >= this.endSeconds - this.frameSeconds) this.position = this.motion.startSeconds;
    if (this.hasSound) {
      this.sound ??= new Sound(this.motion.audio);
      this.sound.isMuted = this.isMuted;
      await this.sound.start(this.position, this.rate);
      if (turn !== this.turn) return;
    }
    this.started = { media: this.position, at: performance.now() };
    this.isPlaying = true;
    this.onState();
    this.#loop(turn).catch((error) => {
      this.pause();
      this.onFault(error);
    });
  }

  pause() {
    if (!this.isPlaying) return;
    this.position = this.now;
    this.turn++;
    this.isPlaying = false;
    this.sound?.stop();
    this.onState();
  }

  /** Go to a time and show its frame. */
  async seek(seconds) {
    const wasPlaying = this.isPlaying;
    this.pause();
    const last = Math.max(this.motion.startSeconds, this.endSeconds - this.frameSeconds / 2);
    this.position = Math.min(Math.max(seconds, this.motion.startSeconds), last);
    await this.refresh();
    if (wasPlaying) await this.play();
  }

  /** Go some frames on or back. */
  async step(frames) {
    this.pause();
    const index = this.motion.indexAt(this.position) + frames;
    const last = this.motion.frameCount - 1;
    await this.seek(this.motion.frame(Math.min(Math.max(index, 0), last)).seconds);
  }

  setMuted(isMuted) {
    this.isMuted = isMuted;
    if (this.sound) this.sound.isMuted = isMuted;
    this.onState();
  }

  async setRate(rate) {
    const wasPlaying = this.isPlaying;
    this.pause();
    this.rate = rate;
    if (wasPlaying) await this.play();
    this.onState();
  }

  /** Draw the present frame again, with changed values or at another resolution. */
  async refresh() {
    if (this.isPlaying || !this.person || !this.motion?.frameCount) return;
    this.isStale = true;
    if (this.isBusy) return; // the drawing that runs sees to it
    this.isBusy = true;
    try {
      while (this.isStale && !this.isPlaying) {
        this.isStale = false;
        const frame = this.motion.seek(this.position);
        await this.#refine(frame).catch((error) => {
          if (error.name !== "AbortError") throw error;
          this.isStale = true; // the renderer was replaced meanwhile
        });
      }
    } finally {
      this.isBusy = false;
    }
  }

  /** Show a frame at the resolution that plays, then at the best one, unless it has changed. */
  async #refine(frame) {
    let rung = this.rung;
    this.#show(frame, await this.#draw(frame, rung));
    while (!this.isStale && !this.isPlaying) {
      const better = this.rungWithin(STILL_MILLISECONDS);
      if (better <= rung) return;
      rung = better;
      this.#show(frame, await this.#draw(frame, rung));
    }
  }

  /** Return the picture of a frame. */
  async picture(frame, rung) {
    return (await this.ready).render(this.stylesOf(frame), rung);
  }

  /** Return the values that a frame is drawn with. */
  valuesOf(frame) {
    const { transfer, driver } = this;
    return this.change(this.person.retarget(frame.values, { transfer, driver }));
  }

  stylesOf(frame) {
    return this.person.styles(this.valuesOf(frame), { driver: null });
  }

  async #draw(frame, rung) {
    const began = performance.now();
    const picture = await this.picture(frame, rung);
    const taken = performance.now() - began;
    const known = this.costs.get(rung) ?? taken;
    this.costs.set(rung, (1 - LEARNING) * known + LEARNING * taken);
    this.drawnRung = rung;
    return picture;
  }

  #show(frame, picture) {
    const { plate, label, motion } = this;
    const { placement } = frame;
    if (plate && placement) {
      const { sourceSize } = motion.header;
      paintOnto(this.canvas, plate, picture, { placement, sourceSize, label });
    } else paint(this.canvas, picture, label);
    this.onShown(frame);
  }

  async #loop(turn) {
    let last = -1;
    while (turn === this.turn) {
      if (this.now >= this.endSeconds) return this.#end();
      const { rung } = this;
      const lead = Math.min((SLACK * this.costOf(rung)) / 1000, 5) * this.rate;
      const frame = this.motion.seek(Math.min(this.now + lead, this.endSeconds - 1e-6));
      if (frame.index === last) {
        await pause(4);
        continue;
      }
      last = frame.index;
      const picture = await this.#draw(frame, rung);
      while (turn === this.turn && this.now < frame.seconds - 0.004 * this.rate) await pause(2);
      if (turn !== this.turn) return undefined;
      this.#note(this.now - frame.seconds);
      this.#show(frame, picture);
      await pause(0);
    }
    return undefined;
  }

  /** Stop at the end, or begin again. */
  async #end() {
    this.pause();
    this.position = this.endSeconds - this.frameSeconds / 2;
    if (this.isLooping) await this.play(); // from the start
    else await this.refresh();
  }

  #note(seconds) {
    this.offsets.push(seconds);
    if (this.offsets.length > KEPT_OFFSETS) this.offsets.shift();
  }

  /** Draw on with a new renderer when the graphics device is gone; on the processor at the third loss. */
  async #recover(person) {
    if (person !== this.person) return;
    this.losses++;
    if (this.losses > 2) this.wanted = ["cpu"];
    await this.show(person);
    await this.refresh();
  }
}

const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));
