// The sound of a file by WebCodecs: decoded a little ahead, scheduled on the audio clock, which leads.

const AHEAD_SECONDS = 1.5; // decoded before it is heard
const TICK_MILLISECONDS = 100;
const START_SECONDS = 0.08; // between scheduling the first packet and hearing it

/** Return what `AudioDecoder` needs for an audio format of a file, or null for an unknown codec. */
export function decoderConfig({ codec, sampleRate, channels, extra }) {
  const base = { sampleRate, numberOfChannels: channels };
  const described = extra.length ? { ...base, description: extra } : base;
  switch (codec) {
    case "opus":
      return { ...described, codec: "opus" };
    case "aac":
      return { ...described, codec: "mp4a.40.2" };
    case "mp3":
      return { ...base, codec: "mp3" };
    case "flac": {
      const head = extra.length === 34 ? [0x66, 0x4c, 0x61, 0x43, 0x80, 0, 0, 34] : [];
      return { ...base, codec: "flac", description: Uint8Array.from([...head, ...extra]) };
    }
    default:
      return null;
  }
}

/** Return a note why a sound cannot be heard; empty if it can. */
export async function soundFault(format) {
  const config = decoderConfig(format);
  if (!config) return `no sound: this page does not decode ${format.codec}`;
  if (!globalThis.AudioDecoder) return "no sound: this browser lacks WebCodecs";
  const { supported } = await AudioDecoder.isConfigSupported(config).catch(() => ({}));
  return supported ? "" : `no sound: this browser does not decode ${format.codec}`;
}

/** Plays the sound of a file; its `seconds` is the time that is heard now. */
export class Sound {
  /** @param audio of a file */
  constructor(audio) {
    this.audio = audio;
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.gain = this.context.createGain();
    this.gain.connect(this.context.destination);
    this.run = null;
    this.rate = 1;
  }

  get isMuted() {
    return this.gain.gain.value === 0;
  }

  set isMuted(value) {
    this.gain.gain.value = value ? 0 : 1;
  }

  /** Time in the file that is heard now; null while stopped. */
  get seconds() {
    if (!this.run) return null;
    const { context, run } = this;
    const late = context.outputLatency || context.baseLatency || 0;
    return run.mediaStart + (context.currentTime - late - run.contextStart) * this.rate;
  }

  /** Play from a time in the file. */
  async start(seconds, rate) {
    this.stop();
    this.rate = rate;
    const run = { nodes: new Set(), mediaStart: seconds, contextStart: 0, isOver: false };
    await this.context.resume();
    run.contextStart = this.context.currentTime + START_SECONDS;
    this.run = run;
    run.packets = this.audio.packets(seconds - 0.1); // codecs need a packet to start
    run.decoder = new AudioDecoder({
      output: (data) => this.#schedule(run, data),
      error: () => {}, // a damaged packet is silence; the pictures go on
    });
    run.decoder.configure(decoderConfig(this.audio.format));
    this.#feed(run);
    run.timer = setInterval(() => this.#feed(run), TICK_MILLISECONDS);
  }

  stop() {
    const { run } = this;
    if (!run) return;
    this.run = null;
    clearInterval(run.timer);
    for (const node of run.nodes) node.stop();
    if (run.decoder.state !== "closed") run.decoder.close();
  }

  close() {
    this.stop();
    this.context.close();
  }

  /** Decode what is heard within the next moments. */
  #feed(run) {
    if (run !== this.run || run.isOver || run.decoder.state !== "configured") return;
    const until = this.seconds + AHEAD_SECONDS * this.rate;
    while ((run.fed ?? -Infinity) < until) {
      const { done, value } = run.packets.next();
      if (done) {
        run.isOver = true;
        run.decoder.flush().catch(() => {});
        return;
      }
      run.fed = value.seconds;
      run.decoder.decode(
        new EncodedAudioChunk({
          type: "key",
          timestamp: Math.round(value.seconds * 1e6),
          duration: Math.round(value.durationSeconds * 1e6),
          data: value.data,
        }),
      );
    }
  }

  #schedule(run, data) {
    if (run !== this.run || data.numberOfFrames === 0) return data.close();
    const { context } = this;
    const buffer = context.createBuffer(
      data.numberOfChannels,
      data.numberOfFrames,
      data.sampleRate,
    );
    for (let channel = 0; channel < data.numberOfChannels; channel++) {
      data.copyTo(buffer.getChannelData(channel), { planeIndex: channel, format: "f32-planar" });
    }
    const at = run.contextStart + (data.timestamp / 1e6 - run.mediaStart) / this.rate;
    const length = buffer.duration / this.rate;
    data.close();
    const late = Math.max(0, context.currentTime - at);
    if (late >= length) return undefined;
    const node = context.createBufferSource();
    node.buffer = buffer;
    node.playbackRate.value = this.rate;
    node.connect(this.gain);
    node.start(at + late, late * this.rate);
    run.nodes.add(node);
    node.addEventListener("ended", () => run.nodes.delete(node));
    return undefined;
  }
}
