// Canonical msgpack (SPEC.md section 1): map, array, str, bin and integers, each in one form only.

import { FormatError, require } from "./errors.js";
import { Builder, compareBytes, decodeUtf8, encodeUtf8, isSameBytes } from "./fields.js";

const MAX_DEPTH = 3;
const EXACT = 2n ** 53n;

/**
 * Return the map of a payload: Map, Array, string, Uint8Array, number, or bigint beyond 2^53.
 *
 * Keys stay in a Map, so that none of them can name a property of an object.
 */
export function unpackMap(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(1);
  require(value instanceof Map, "bad-encoding", "expected a msgpack map, found another value");
  require(reader.at === bytes.length, "bad-encoding", "expected the end of msgpack, found more bytes");
  return value;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(size) {
    require(size <= this.bytes.length - this.at, "bad-encoding", "msgpack ends inside a value");
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  /** Return an unsigned integer of 1, 2 or 4 bytes, or a bigint of 8. */
  unsigned(size) {
    const raw = this.take(size);
    if (size === 8) return raw.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    return raw.reduce((sum, byte) => sum * 256 + byte, 0);
  }

  /** Return a size that does not fit the next shorter form. */
  size(bytes, least) {
    const size = this.unsigned(bytes);
    require(size >= least, "bad-encoding", `msgpack size ${size} is not in its shortest form`);
    return size;
  }

  value(depth) {
    const tag = this.take(1)[0];
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.map(tag & 15, depth);
    if (tag < 0xa0) return this.array(tag & 15, depth);
    if (tag < 0xc0) return decodeUtf8(this.take(tag & 31));
    if (tag >= 0xe0) return tag - 256;
    switch (tag) {
      case 0xc4: return this.take(this.size(1, 0));
      case 0xc5: return this.take(this.size(2, 1 << 8));
      case 0xc6: return this.take(this.size(4, 1 << 16));
      case 0xd9: return decodeUtf8(this.take(this.size(1, 32)));
      case 0xda: return decodeUtf8(this.take(this.size(2, 1 << 8)));
      case 0xdb: return decodeUtf8(this.take(this.size(4, 1 << 16)));
      case 0xdc: return this.array(this.size(2, 16), depth);
      case 0xdd: return this.array(this.size(4, 1 << 16), depth);
      case 0xde: return this.map(this.size(2, 16), depth);
      case 0xdf: return this.map(this.size(4, 1 << 16), depth);
    }
    if (tag >= 0xcc && tag <= 0xcf) return this.positive(tag - 0xcc);
    if (tag >= 0xd0 && tag <= 0xd3) return this.negative(tag - 0xd0);
    throw new FormatError("bad-encoding", `msgpack tag 0x${tag.toString(16)} is not allowed`);
  }

  positive(power) {
    const value = this.unsigned(1 << power);
    const least = power === 0 ? 128 : 2 ** (8 << (power - 1));
    require(value >= least, "bad-encoding", "a msgpack integer is not in its shortest form");
    return typeof value === "bigint" && value <= EXACT ? Number(value) : value;
  }

  negative(power) {
    const bits = 8 << power;
    const value = BigInt.asIntN(bits, BigInt(this.unsigned(1 << power)));
    const most = power === 0 ? -33n : -(2n ** BigInt(bits / 2 - 1)) - 1n;
    require(value <= most, "bad-encoding", "a msgpack integer is not in its shortest form");
    return value >= -EXACT ? Number(value) : value;
  }

  array(size, depth) {
    require(depth <= MAX_DEPTH, "bad-encoding", "msgpack is nested more than 3 deep");
    const items = [];
    for (let count = 0; count < size; count++) items.push(this.value(depth + 1));
    return items;
  }

  map(size, depth) {
    require(depth <= MAX_DEPTH, "bad-encoding", "msgpack is nested more than 3 deep");
    const map = new Map();
    let before = null;
    for (let count = 0; count < size; count++) {
      const key = this.value(depth + 1);
      require(typeof key === "string", "bad-encoding", "a msgpack map key is not str");
      const raw = encodeUtf8(key);
      const rises = before === null || compareBytes(before, raw) < 0;
      require(rises, "bad-encoding", "msgpack map keys do not rise");
      before = raw;
      map.set(key, this.value(depth + 1));
    }
    return map;
  }
}

/** Return canonical msgpack of what `unpackMap` returns; keys in any order. */
export function packMap(map) {
  const out = new Builder();
  pack(map, out);
  return out.finish();
}

/** Return a copy of a value that may be put into another map. */
export function isSameValue(a, b) {
  return isSameBytes(packMap(new Map([["", a]])), packMap(new Map([["", b]])));
}

function pack(value, out) {
  if (value instanceof Map) {
    packHead(out, value.size, [0x80, 16], [[2, 0xde], [4, 0xdf]]);
    const keys = [...value.keys()].map((key) => [encodeUtf8(key), key]);
    for (const [, key] of keys.sort((a, b) => compareBytes(a[0], b[0]))) {
      pack(key, out);
      pack(value.get(key), out);
    }
  } else if (Array.isArray(value)) {
    packHead(out, value.length, [0x90, 16], [[2, 0xdc], [4, 0xdd]]);
    for (const item of value) pack(item, out);
  } else if (typeof value === "string") {
    const raw = encodeUtf8(value);
    packHead(out, raw.length, [0xa0, 32], [[1, 0xd9], [2, 0xda], [4, 0xdb]]);
    out.bytes(raw);
  } else if (value instanceof Uint8Array) {
    packHead(out, value.length, [0, 0], [[1, 0xc4], [2, 0xc5], [4, 0xc6]]);
    out.bytes(value);
  } else {
    packInteger(BigInt(value), out);
  }
}

function packHead(out, size, [base, room], forms) {
  if (size < room) return out.u8(base | size);
  const [width, tag] = forms.find(([bytes]) => size < 256 ** bytes);
  return out.u8(tag).bytes(bigEndian(BigInt(size), width));
}

function packInteger(value, out) {
  if (value >= -32n && value < 128n) return out.u8(Number(value & 255n));
  for (let power = 0; power < 4; power++) {
    const bits = 8n << BigInt(power);
    const fits = value >= 0n ? value < 1n << bits : value >= -(1n << (bits - 1n));
    if (fits) return out.u8((value >= 0n ? 0xcc : 0xd0) + power).bytes(bigEndian(value, 1 << power));
  }
  throw new FormatError("bad-encoding", "expected an integer of 64 bits");
}

function bigEndian(value, size) {
  return Uint8Array.from({ length: size }, (_, at) => Number((value >> BigInt(8 * (size - 1 - at))) & 255n));
}
