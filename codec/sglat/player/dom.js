// Elements made by hand: texts become text nodes, so that nothing of a file is ever read as HTML.

/** Return a new element with attributes and children; functions are event listeners. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Return the element of an id. */
export const byId = (id) => document.getElementById(id);

/** Replace what an element holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children);
}

/** Return text without control characters, for one line. */
export function printable(text, most = 500) {
  const plain = String(text).replace(/[\p{C}\u2028\u2029]/gu, (c) =>
    c === "\u200d" ? c : `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
  return plain.length > most ? `${plain.slice(0, most)}…` : plain;
}

/** Return seconds as m:ss.s. */
export function clockText(seconds) {
  const whole = Math.max(0, seconds);
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

/** Return a number of bytes as text. */
export function sizeText(bytes) {
  if (bytes < 10_000) return `${bytes} bytes`;
  return bytes < 1e7 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Offer bytes as a download. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Return an element's size in device pixels after fitting its canvas to it. */
export function fitCanvas(canvas) {
  const scale = globalThis.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return { width, height, scale };
}
