// CRC-32C of chunks (SPEC.md section 2) and SHA-256 (FIPS 180-4) of motion and identity.
//
// SHA-256 is written out because the browser's own is asynchronous and absent on pages of plain HTTP.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value >>> 0;
});

/** Return the Castagnoli CRC of bytes. */
export function crc32c(bytes) {
  let crc = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ bytes[at]) & 255];
  return ~crc >>> 0;
}

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((p) => n % p)) PRIMES.push(n);
const fraction = (root) => Math.floor((root - Math.floor(root)) * 2 ** 32) | 0;
const ROUND = Int32Array.from(PRIMES, (p) => fraction(Math.cbrt(p)));
const START = Int32Array.from(PRIMES.slice(0, 8), (p) => fraction(Math.sqrt(p)));
const BLOCK = 64;

/** SHA-256 of bytes that come in parts. */
export class Sha256 {
  constructor() {
    this.state = START.slice();
    this.block = new Uint8Array(BLOCK);
    this.size = 0;
    this.words = new Int32Array(64);
  }

  update(bytes) {
    let at = 0;
    const begun = this.size % BLOCK;
    this.size += bytes.length;
    if (begun) {
      at = Math.min(BLOCK - begun, bytes.length);
      this.block.set(bytes.subarray(0, at), begun);
      if (begun + at < BLOCK) return this;
      this._mix(this.block, 0);
    }
    for (; at + BLOCK <= bytes.length; at += BLOCK) this._mix(bytes, at);
    this.block.set(bytes.subarray(at));
    return this;
  }

  /** Return the 32 bytes; the hash is then at its end. */
  digest() {
    const bits = 8 * this.size;
    // One bit, zeros, and the size in eight bytes, up to the end of a block.
    const padding = new Uint8Array(9 + ((BLOCK + 55 - (this.size % BLOCK)) % BLOCK));
    padding[0] = 128;
    const view = new DataView(padding.buffer);
    view.setUint32(padding.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(padding.length - 4, bits >>> 0);
    this.update(padding);
    const out = new DataView(new ArrayBuffer(32));
    this.state.forEach((word, index) => out.setInt32(4 * index, word));
    return new Uint8Array(out.buffer);
  }

  _mix(bytes, at) {
    const w = this.words;
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15];
      const b = w[i - 2];
      const s0 = ((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3);
      const s1 = ((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, h] = this.state;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => {
      this.state[index] = (this.state[index] + word) | 0;
    });
  }
}

/** Return the SHA-256 of bytes. */
export const sha256 = (bytes) => new Sha256().update(bytes).digest();
