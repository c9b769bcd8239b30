// Bytes that come into the page: chosen files, and what the page itself holds.

import { byId } from "./dom.js";

const MAX_FILE_BYTES = 2 ** 30; // of a file that is read whole

/** Return a file's name without its ending, fit for a file system. */
export const stem = (name) => name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]/gu, "_").slice(0, 80) || "sglat";

/** Return the bytes of a chosen file; what is no `.sglat` file for certain is not read. */
export async function read(file) {
  if (file.size > MAX_FILE_BYTES) throw new Error(`expected a file below 1 GB, found ${Math.round(file.size / 1e6)} MB`);
  const head = new Uint8Array(await file.slice(0, 4096).arrayBuffer());
  if (head.length < file.size && head.every((byte) => byte === 0)) throw new Error("not-sglat: expected a .sglat file, found zeros");
  return new Uint8Array(await file.arrayBuffer());
}

/** Return the bytes that an element of the page holds in base64; null if it is empty. */
export function held(id) {
  const text = byId(id).textContent.trim();
  if (!text) return null;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
