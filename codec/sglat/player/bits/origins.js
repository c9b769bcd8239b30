// Records of origin that an edited file keeps of the files it was made from (SPEC.md 10.1 and 13).

import { sha256 } from "./checksum.js";
import { FormatError } from "./errors.js";
import { packProvenance, unpackProvenance } from "./extras.js";
import { decodeUtf8, encodeUtf8, toHex } from "./fields.js";
import { CHUNKS } from "./limits.js";

const KNOWN_KEYS = ["by", "consent", "note", "source"];
const SIGNED_KEYS = ["identity", "motion", "signer", "time", "key", "sig"];
const MAX_DRIVES = 64;
const MAX_EDITS = 128;
const MAX_EDIT_BYTES = 160;
const HASH_BYTES = 32;
export const NO_CONSENT = "swapped without a consent statement of the person shown";

const isBytes = (value) => value instanceof Uint8Array;
const extraOf = (map) => new Map([...map].filter(([key]) => !KNOWN_KEYS.includes(key)));
const lookOrigin = (map) => (isBytes(map.get("look")) ? map.get("look") : null);

/** Return the records that a file's motion comes from: those it keeps, or its own. */
function driveOrigins(payload) {
  const found = unpackProvenance(payload).map.get("drive");
  const items = Array.isArray(found) ? found.filter(isBytes) : [];
  return items.length ? items : [payload];
}

function unique(records) {
  return [...new Map(records.map((record) => [toHex(record), record])).values()];
}

/** Return the label of the first of some records that has one, as an entry of a map. */
function labelOf(...payloads) {
  for (const payload of payloads) {
    const label = payload && unpackProvenance(payload).map.get("label");
    const isEmpty = !label || label.length === 0 || label.size === 0;
    if (!isEmpty) return [["label", label]];
  }
  return [];
}

/**
 * Return PROV of a file with the identity of one file and the motion of another, unsigned.
 *
 * Consent, note and source are the identity's; without a consent statement the note says so. Both
 * arguments are payloads or null; null comes back where both are.
 */
export function swapped(look, motion) {
  if (look === null && motion === null) return null;
  const shown = unpackProvenance(look ?? motion);
  const [consent, note] = look === null ? ["", ""] : [shown.consent, shown.note];
  const extra = new Map(labelOf(look, motion));
  if (look !== null && extraOf(shown.map).size) extra.set("look", lookOrigin(shown.map) ?? look);
  if (motion !== null) extra.set("drive", driveOrigins(motion));
  const notes = note.split("; ").filter((one) => one && one !== NO_CONSENT);
  if (!consent) notes.push(NO_CONSENT);
  const source = look === null ? null : shown.source;
  return packFitting({ by: shown.by, consent, note: notes.join("; "), source, extra });
}

/**
 * Return PROV of a file whose motion was edited, unsigned; a signed record becomes an origin.
 *
 * @param {?Uint8Array} payload PROV of the file before
 * @param {string[]} texts the edits in their order
 * @param {Uint8Array[]} drives PROV of files whose motion was mixed in
 * @param {string} madeBy program, for a file without a record
 */
export function edited(payload, texts, drives, madeBy) {
  const none = { by: madeBy, consent: "", note: "", source: null, map: new Map() };
  const record = payload === null ? none : unpackProvenance(payload);
  const extra = extraOf(record.map);
  const isSigned = extra.has("sig");
  for (const key of SIGNED_KEYS) extra.delete(key);
  const others = drives.flatMap(driveOrigins);
  if (payload !== null && (drives.length || isSigned)) {
    extra.set("look", lookOrigin(record.map) ?? payload);
    extra.set("drive", unique([...driveOrigins(payload), ...others]));
  } else if (drives.length) {
    extra.set("drive", unique(others));
  }
  const before = record.map.get("edits");
  const kept = Array.isArray(before) ? before.filter((text) => typeof text === "string") : [];
  extra.set("edits", [...kept, ...texts.map(cutText)].slice(-MAX_EDITS));
  return packFitting({ ...record, extra });
}

/** Return the start of a text that fits, in whole characters. */
function cutText(text) {
  const raw = encodeUtf8(text);
  let end = Math.min(raw.length, MAX_EDIT_BYTES);
  while (end < raw.length && (raw[end] & 0xc0) === 0x80) end--;
  return decodeUtf8(raw.subarray(0, end));
}

/** Return a record that fits PROV: from its longest origins on, hashes take their place. */
function packFitting({ by, consent, note, source, extra }) {
  const record = new Map([...extra, ["by", by], ["consent", consent], ["note", note]]);
  if (source) record.set("source", source);
  if (Array.isArray(record.get("drive"))) record.set("drive", record.get("drive").slice(0, MAX_DRIVES));
  const most = CHUNKS.get("PROV")[1];
  for (;;) {
    const payload = packProvenance(record);
    if (payload.length <= most) return payload;
    const drives = record.get("drive") ?? [];
    const look = record.get("look") ?? new Uint8Array();
    const longest = drives.reduce((a, b) => (b.length > a.length ? b : a), look);
    if (longest.length <= HASH_BYTES) {
      throw new FormatError("bad-length", `expected provenance of at most ${most} bytes`);
    }
    const [key, short] = [toHex(longest), sha256(longest)];
    const shortened = (item) => (toHex(item) === key ? short : item);
    if (record.has("look")) record.set("look", shortened(look));
    if (drives.length) record.set("drive", drives.map(shortened));
  }
}
