// The processor's renderer in a worker, so that the page can react while it computes.
//
// The worker runs the page's own script, which is one text; without a document it serves here.

import * as cpu from "./cpu.js";

/** Return a renderer that draws in a worker, or in the page where there are no workers. */
export async function create({ channels, weights }) {
  const code = globalThis.document?.getElementById("code")?.textContent;
  if (!code || !globalThis.Worker) return cpu.create({ channels, weights });
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(address);
  const renderer = new Remote(worker);
  try {
    renderer.kind = await renderer.ask({ channels, weights });
  } catch {
    worker.terminate();
    return cpu.create({ channels, weights });
  } finally {
    URL.revokeObjectURL(address);
  }
  return renderer;
}

class Remote {
  constructor(worker) {
    this.worker = worker;
    this.waiting = new Map();
    this.number = 0;
    worker.addEventListener("message", ({ data }) => {
      const { resolve, reject } = this.waiting.get(data.number);
      this.waiting.delete(data.number);
      if (data.fault) reject(new Error(data.fault));
      else resolve(data.answer);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      for (const { reject } of this.waiting.values()) reject(new Error("the worker has failed"));
      this.waiting.clear();
    });
  }

  ask(question) {
    const number = ++this.number;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ number, ...question });
    });
  }

  render(styles, rung) {
    return this.ask({ styles, rung });
  }

  destroy() {
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) {
      reject(new DOMException("the renderer was replaced", "AbortError"));
    }
    this.waiting.clear();
  }
}

/** Answer a page from inside a worker. */
export function serve() {
  let renderer = null;
  const answer = async ({ channels, weights, styles, rung }) => {
    if (styles) return (await renderer).render(styles, rung);
    renderer = cpu.create({ channels, weights, isAlone: true });
    return (await renderer).kind;
  };
  globalThis.addEventListener("message", async ({ data }) => {
    try {
      globalThis.postMessage({ number: data.number, answer: await answer(data) });
    } catch (error) {
      globalThis.postMessage({ number: data.number, fault: String(error.message) });
    }
  });
}
