// The page: opens files, and joins stage, curves, facts, sliders and downloads to its elements.

import { open as openFile, openInSteps } from "./decoder.js";
import { openPlate } from "./backdrop.js";
import { Curves, GROUPS } from "./curves.js";
import { toHex } from "./bits/fields.js";
import { byId, clockText, download, el, fill, printable } from "./dom.js";
import { serve } from "./cpu_worker.js";
import { changedMotion, replaceMotion, swap, verified } from "./edits.js";
import { film, still } from "./export.js";
import { showFacts } from "./facts.js";
import { held, read, stem } from "./inputs.js";
import { Person } from "./person.js";
import { createRenderer, labelOf } from "./renderers.js";
import { Sliders } from "./sliders.js";
import { Stage } from "./stage.js";
import { Watermark, identifierOf } from "./watermark.js";
import { weights } from "./weights.js";

const SEEK_SECONDS = 5; // of the keys J and L

/** What other scripts of the page may look at: `state.player` when all is loaded. */
export const state = { player: null, firstPictureAt: null, createRenderer, openFile };

class Player {
  constructor(bundle) {
    this.bundle = bundle;
    this.labels = ["yaw", "pitch", ...bundle.controls.names];
    this.groups = ["pose", "pose", ...bundle.controls.groups];
    const sigma = [NaN, NaN, ...bundle.controls.sigma];
    const wanted = new URLSearchParams(location.search).get("renderer")?.split(",");
    this.stage = new Stage(byId("picture"), {
      wanted,
      onShown: (frame) => this.shown(frame),
      onState: () => this.showState(),
      onFault: (error) => error.name !== "AbortError" && tell(error),
    });
    this.curves = new Curves(byId("curves"), {
      labels: this.labels,
      groups: this.groups,
      sigma,
      onSeek: (index) => this.file && this.act(() => this.stage.seek(this.stage.motion.frame(index).seconds)),
      onHover: (found) => this.hover(found),
    });
    this.sliders = new Sliders(byId("sliders"), {
      labels: this.labels,
      groups: this.groups,
      sigma,
      onChange: () => this.stage.refresh(),
    });
    this.stage.change = (values) => this.sliders.change(values, this.stage.person.neutral);
    this.file = null;
    this.driver = null;
    this.name = "";
    this.connect();
  }

  connect() {
    const { stage } = this;
    const on = (id, kind, action) => byId(id).addEventListener(kind, (event) => this.act(() => action(event)));
    on("play", "click", () => this.toggle());
    on("back", "click", () => stage.step(-1));
    on("on", "click", () => stage.step(1));
    on("seek", "input", () => stage.seek(byId("seek").valueAsNumber));
    on("rate", "change", () => stage.setRate(Number(byId("rate").value)));
    on("rung", "change", () => this.setRung(Number(byId("rung").value)));
    on("loop", "click", () => this.setLoop(!stage.isLooping));
    on("mute", "click", () => stage.setMuted(!stage.isMuted));
    on("full", "click", () => this.fullScreen());
    on("still", "click", () => this.saveStill());
    on("film", "click", () => this.showRange());
    on("range", "submit", (event) => this.saveFilm(event));
    on("stop", "click", () => this.stopFilm());
    on("open", "change", (event) => this.openChosen(event.target, (bytes, name) => this.open(bytes, name)));
    on("driver", "change", (event) => this.openChosen(event.target, (bytes, name) => this.drive(bytes, name)));
    on("own", "click", () => this.ownMotion());
    on("transfer", "change", () => this.setTransfer(byId("transfer").value));
    on("alone", "change", () => {
      this.sliders.isAlone = byId("alone").checked;
      return stage.refresh();
    });
    on("save", "click", () => this.save());
    on("plate", "change", () => this.showPlate(byId("plate").checked));
    on("reset", "click", () => this.sliders.reset());
    on("wider", "click", () => this.curves.zoom(2));
    on("narrower", "click", () => this.curves.zoom(0.5));
    fill(byId("groups"), ...GROUPS.map((group) => this.groupBox(group)));
    document.addEventListener("keydown", (event) => this.act(() => this.key(event)));
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
    document.addEventListener("drop", (event) => this.act(() => this.drop(event)));
  }

  groupBox(group) {
    const box = el("input", { type: "checkbox", checked: true, change: () => this.curves.toggle(group, box.checked) });
    return el("label", {}, box, " ", el("span", { class: `swatch swatch-${group}` }), group);
  }

  /** Do something; an error becomes a line in the page. */
  async act(action) {
    try {
      await action();
    } catch (error) {
      if (error.name !== "AbortError") tell(error);
    }
  }

  /** Open a file and show its first picture. */
  async open(bytes, name) {
    wait("Reading…");
    const file = await openInSteps(bytes, { onProgress: (share) => wait(`Reading ${Math.round(100 * share)} %`) });
    this.stage.pause();
    showFacts(byId("facts"), file); // also of files that this page cannot draw
    byId("name").textContent = printable(name, 200);
    const person = await Person.inSteps(this.bundle, file);
    await this.stage.show(person);
    this.stage.label = labelOf(file);
    this.marking = markingOf(file);
    this.file = file;
    this.name = name;
    tell(...file.warnings.filter((line) => !line.startsWith("the file does not tell")));
    await this.setMotion(file, person.driver);
    const { wantedRung } = this.stage;
    const options = [0, ...person.rungs].map((rung) =>
      el("option", { value: rung, selected: rung === wantedRung }, rung ? String(rung) : "auto"),
    );
    fill(byId("rung"), ...options);
    byId("notice").textContent = printable(noticeOf(file));
    document.title = `${printable(name, 80)} – sglat`;
    wait("");
  }

  async setMotion(motion, driver) {
    const { stage } = this;
    await stage.drive(motion, driver);
    this.driver = motion === this.file ? null : motion;
    const seek = byId("seek");
    seek.min = motion.startSeconds;
    seek.max = stage.endSeconds;
    byId("from").value = motion.startSeconds;
    byId("to").value = stage.endSeconds.toFixed(2);
    byId("own").hidden = this.driver === null;
    this.plate = this.driver ? null : await openPlate(motion); // it is the own motion's background
    stage.plate = null;
    byId("plate").checked = false;
    byId("plate-label").hidden = this.plate === null;
    this.curves.show(motion);
    this.showState();
    if (!motion.frameCount) throw new Error("the file holds no motion: it shows nobody moving; open a file that does");
    await stage.refresh();
  }

  /** Drive the face that is shown by the motion of another file. */
  async drive(bytes, name) {
    if (!this.file) return this.open(bytes, name);
    const motion = await openInSteps(bytes);
    if (motion.header.bundle !== this.file.header.bundle) {
      throw new Error(`expected motion of bundle ${this.file.header.bundle}, found ${printable(motion.header.bundle)}`);
    }
    const consent = byId("consent");
    consent.hidden = false;
    consent.textContent = printable(
      `${this.name} is driven by ${name}. The person shown did not move so. ${consentOf(this.file)}`,
    );
    return this.setMotion(motion, motion.motionNeutral ?? motion.identity?.neutral ?? null);
  }

  async ownMotion() {
    byId("consent").hidden = true;
    await this.setMotion(this.file, this.stage.person.driver);
  }

  showPlate(isShown) {
    this.stage.plate = isShown ? this.plate : null;
    return this.stage.refresh();
  }

  setTransfer(transfer) {
    this.stage.transfer = transfer;
    return this.stage.refresh();
  }

  setRung(rung) {
    this.stage.wantedRung = rung;
    return this.stage.refresh();
  }

  setLoop(isLooping) {
    this.stage.isLooping = isLooping;
    this.showState();
  }

  toggle() {
    if (this.stage.isPlaying) return this.stage.pause();
    return this.stage.play();
  }

  fullScreen() {
    return document.fullscreenElement ? document.exitFullscreen() : byId("frame").requestFullscreen();
  }

  key(event) {
    const { stage } = this;
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName ?? "");
    const isButton = event.target.tagName === "BUTTON" || event.target.tagName === "SUMMARY";
    if (event.ctrlKey || event.metaKey || event.altKey || !this.file) return undefined;
    const jump = (seconds) => stage.seek(stage.now + seconds);
    const actions = {
      " ": () => this.toggle(), k: () => this.toggle(),
      ",": () => stage.step(-1), ".": () => stage.step(1),
      j: () => jump(-SEEK_SECONDS), l: () => jump(SEEK_SECONDS),
      Home: () => stage.seek(stage.motion.startSeconds), End: () => stage.seek(stage.endSeconds),
      m: () => stage.setMuted(!stage.isMuted), o: () => this.setLoop(!stage.isLooping),
      f: () => this.fullScreen(), "+": () => this.curves.zoom(2), "-": () => this.curves.zoom(0.5),
    }; // prettier-ignore
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || (isTyping && event.target.type !== "range") || (isButton && event.key === " ")) return undefined;
    if (isTyping && (event.key === "Home" || event.key === "End")) return undefined;
    event.preventDefault();
    return action();
  }

  async drop(event) {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (!file) return;
    const bytes = await read(file);
    const isDriver = this.file && byId("hold").contains(event.target);
    await (isDriver ? this.drive(bytes, file.name) : this.open(bytes, file.name));
  }

  async openChosen(input, use) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    tell();
    try {
      await use(await read(file), file.name);
    } finally {
      if (this.file) wait("");
    }
  }

  async saveStill() {
    const { stage } = this;
    const frame = stage.motion.seek(stage.now);
    const picture = await still(await stage.picture(frame, stage.person.rungs.at(-1)), this.file, { label: stage.label, ...this.marking });
    download(picture, `${stem(this.name)}-${String(frame.index).padStart(5, "0")}.png`);
  }

  /** Save what is shown as a file: the motion's source, the sliders, this look. */
  save() {
    const { file, driver, sliders, stage } = this;
    const { transfer } = stage;
    let bytes = driver ? swap(driver, file, { transfer }) : file.bytes;
    if (sliders.isUsed) {
      const source = driver ? openFile(bytes) : file;
      const neutral = (transfer === "relative" && source.motionNeutral) || file.identity.neutral;
      const change = (values) => values.set(sliders.change(values, neutral));
      bytes = replaceMotion(source, changedMotion(source, change), { texts: [sliders.text] });
    }
    verified(bytes);
    this.lastSaved = bytes;
    download(new Blob([bytes], { type: "application/octet-stream" }), `${stem(this.name)}-edited.sglat`);
  }

  showRange() {
    byId("range").hidden = !byId("range").hidden;
  }

  async saveFilm(event) {
    event.preventDefault();
    const { stage } = this;
    stage.pause();
    const [from, to] = [byId("from").valueAsNumber, byId("to").valueAsNumber];
    if (!(to > from)) throw new Error("expected an end after the start of the film");
    this.filming = new AbortController();
    const { signal } = this.filming;
    const onProgress = (share) => (byId("progress").value = share);
    const size = stage.wantedRung || stage.person.rungs.at(-1);
    const blob = await film(stage, this.file, { size, from, to, signal, onProgress, ...this.marking });
    this.lastFilm = blob;
    download(blob, `${stem(this.name)}.webm`);
  }

  stopFilm() {
    this.filming?.abort();
    byId("progress").value = 0;
  }

  shown(frame) {
    const { stage } = this;
    state.firstPictureAt ??= performance.now();
    const seek = byId("seek");
    if (document.activeElement !== seek || stage.isPlaying) seek.value = frame.seconds;
    byId("time").textContent = `${clockText(frame.seconds)} / ${clockText(stage.endSeconds)}`;
    this.curves.mark(frame.index);
    byId("status").textContent = this.statusOf(frame);
  }

  statusOf(frame) {
    const { stage } = this;
    const rung = stage.drawnRung;
    const speed = Math.min(999, 1000 / stage.costOf(rung));
    const parts = [`frame ${frame.index}`, `${stage.renderer.kind}, ${rung} px, up to ${speed.toFixed(speed < 10 ? 1 : 0)} pictures/s`];
    if (frame.held) parts.push("held: the source shows no face here");
    if (stage.soundNote) parts.push(stage.soundNote);
    return parts.join(" · ");
  }

  showState() {
    const { stage } = this;
    byId("play").textContent = stage.isPlaying ? "Pause" : "Play";
    byId("loop").setAttribute("aria-pressed", String(stage.isLooping));
    byId("mute").setAttribute("aria-pressed", String(stage.isMuted));
    byId("mute").disabled = !stage.hasSound;
  }

  hover(found) {
    const texts = found?.near.map(({ label, value }) => `${label} ${value.toFixed(2)}`) ?? [];
    byId("hover").textContent = found ? `${clockText(found.seconds)}, frame ${found.index}: ${texts.join(" · ")}` : "";
  }
}

/** Return what marks pictures of a look that are written, and its identifier as text. */
function markingOf(file) {
  const tables = JSON.parse(byId("marks").textContent);
  const identifier = identifierOf(file, tables.idBytes);
  const own = new Watermark(tables, identifier);
  return { mark: (picture, seconds) => own.mark(picture, seconds), watermark: toHex(identifier) };
}

function consentOf(file) {
  const { consent } = file.provenance ?? {};
  return consent ? `Consent: ${consent}` : "There is no statement of consent in the file.";
}

function noticeOf(file) {
  return `Generated pictures: this face is synthesized. ${consentOf(file)}`;
}

/** Show lines in the page's message; nothing hides it. */
function tell(...found) {
  const lines = found.map((one) => (one instanceof Error ? describe(one) : one)).filter(Boolean);
  const message = byId("message");
  message.textContent = lines.map((line) => printable(line)).join(" ");
  message.hidden = lines.length === 0;
}

function describe(error) {
  const isOurs = error.code !== undefined && typeof error.code === "string";
  return isOurs ? String(error) : error.message;
}

function wait(text) {
  byId("wait").textContent = text;
  byId("wait").hidden = text === "";
}

async function start() {
  try {
    const packed = held("weights");
    if (!packed) throw new Error("this page has no weights in it");
    state.player = new Player(weights(packed));
    byId("weights").remove(); // frees the text
    wait("Open a .sglat file.");
    const file = held("file");
    if (file) await state.player.open(file, byId("file").dataset.name);
  } catch (error) {
    tell(error);
    wait("");
  }
}

if (globalThis.document) {
  globalThis.sglatPlayer = state;
  start();
} else {
  serve();
}
