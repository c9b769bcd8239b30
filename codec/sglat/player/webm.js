// A WebM file of encoded pictures and Opus packets, with tags.
//
// Source: RFC 8794 (EBML), RFC 9559 (Matroska), https://www.webmproject.org/docs/container/.

const CLUSTER_MILLISECONDS = 5000;
const BLOCK_LIMIT = 32000; // milliseconds in a cluster; block times are 16 bits

const ID = {
  EBML: 0x1a45dfa3, Version: 0x4286, ReadVersion: 0x42f7, MaxId: 0x42f2, MaxSize: 0x42f3,
  DocType: 0x4282, DocVersion: 0x4287, DocReadVersion: 0x4285,
  Segment: 0x18538067, Info: 0x1549a966, Scale: 0x2ad7b1, Duration: 0x4489, Muxer: 0x4d80, Writer: 0x5741,
  Tracks: 0x1654ae6b, Track: 0xae, Number: 0xd7, Uid: 0x73c5, Type: 0x83, Codec: 0x86, Private: 0x63a2,
  Delay: 0x56aa, PreRoll: 0x56bb,
  Video: 0xe0, Width: 0xb0, Height: 0xba, Audio: 0xe1, Rate: 0xb5, Channels: 0x9f,
  Tags: 0x1254c367, Tag: 0x7373, Targets: 0x63c0, SimpleTag: 0x67c8, TagName: 0x45a3, TagText: 0x4487,
  Cluster: 0x1f43b675, Time: 0xe7, Block: 0xa3,
}; // prettier-ignore

/**
 * Return a WebM file.
 *
 * @param video {codec: "V_VP9", width, height, chunks: [{seconds, isKey, data}]}
 * @param audio {channels, sampleRate, description, chunks: [{seconds, data}]} or null
 * @param tags texts by name
 */
export function webm({ video, audio, durationSeconds, tags }) {
  const tracks = [
    element(ID.Track, uint(ID.Number, 1), uint(ID.Uid, 1), uint(ID.Type, 1), text(ID.Codec, video.codec),
      element(ID.Video, uint(ID.Width, video.width), uint(ID.Height, video.height))),
  ];
  if (audio) {
    tracks.push(element(ID.Track, uint(ID.Number, 2), uint(ID.Uid, 2), uint(ID.Type, 2), text(ID.Codec, "A_OPUS"),
      ...(audio.description ? [element(ID.Private, audio.description)] : []),
      uint(ID.PreRoll, 80_000_000),
      element(ID.Audio, float(ID.Rate, audio.sampleRate), uint(ID.Channels, audio.channels))));
  }
  const blocks = [
    ...video.chunks.map((chunk) => ({ ...chunk, track: 1 })),
    ...(audio?.chunks ?? []).map((chunk) => ({ ...chunk, track: 2, isKey: true })),
  ].sort((a, b) => a.seconds - b.seconds || b.track - a.track);
  const head = element(ID.EBML, uint(ID.Version, 1), uint(ID.ReadVersion, 1), uint(ID.MaxId, 4), uint(ID.MaxSize, 8),
    text(ID.DocType, "webm"), uint(ID.DocVersion, 4), uint(ID.DocReadVersion, 2));
  const segment = element(ID.Segment,
    element(ID.Info, uint(ID.Scale, 1_000_000), float(ID.Duration, durationSeconds * 1000),
      text(ID.Muxer, "sglat"), text(ID.Writer, "sglat player")),
    element(ID.Tracks, ...tracks),
    element(ID.Tags, element(ID.Tag, element(ID.Targets),
      ...Object.entries(tags).map(([name, value]) =>
        element(ID.SimpleTag, text(ID.TagName, name), text(ID.TagText, value))))),
    ...clusters(blocks));
  return new Blob([head, segment].flatMap(flat), { type: "video/webm" });
}

function clusters(blocks) {
  const out = [];
  let start = null;
  let parts = [];
  const close = () => parts.length && out.push(element(ID.Cluster, uint(ID.Time, start), ...parts));
  for (const { seconds, isKey, data, track } of blocks) {
    const time = Math.max(0, Math.round(seconds * 1000));
    const isDue = start !== null && track === 1 && isKey && time - start >= CLUSTER_MILLISECONDS;
    if (start === null || isDue || time - start > BLOCK_LIMIT) {
      close();
      [start, parts] = [time, []];
    }
    const at = time - start;
    const block = Uint8Array.of(0x80 | track, (at >> 8) & 255, at & 255, isKey ? 0x80 : 0);
    parts.push(element(ID.Block, block, data));
  }
  close();
  return out;
}

/** An element is {bytes, parts}: its own head, and what is inside. */
function element(id, ...parts) {
  const size = parts.reduce((sum, part) => sum + lengthOf(part), 0);
  return { head: Uint8Array.from([...bytesOf(id), ...sizeBytes(size)]), parts, size };
}

const lengthOf = (part) => (part.head ? part.head.length + part.size : part.length);
const flat = (part) => (part.head ? [part.head, ...part.parts.flatMap(flat)] : [part]);
const text = (id, value) => element(id, new TextEncoder().encode(value));
const uint = (id, value) => element(id, Uint8Array.from(bytesOf(value)));

function float(id, value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value);
  return element(id, bytes);
}

function bytesOf(value) {
  const bytes = [];
  for (let rest = value; rest > 0 || !bytes.length; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return bytes;
}

/** Return a size as a number of 8 bytes. */
function sizeBytes(size) {
  const bytes = bytesOf(size);
  return [1, ...new Array(7 - bytes.length).fill(0), ...bytes];
}
