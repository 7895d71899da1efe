// Where a model comes from: a file at hand, a kept copy, or the network. All give the same to the wasm:
// `name`, `length`, `read(start, end)`, `release(end)`, and `sibling(name)` for the other files of a split model.
import { BadModelError, asBrookletError, aborted } from "./errors.js";
import { Download } from "./download.js";
import { forgetModel, kept, nameOf, noteKept } from "./store.js";

const PIECE = 4 << 20;

class BlobFile {
  constructor(blob, name, from, signal) {
    this.signal = signal;
    this.name = name;
    this.length = blob.size;
    this.from = from;
    this.blob = blob;
  }

  async read(start, end) {
    if (this.signal?.aborted) throw aborted();
    try {
      return new Uint8Array(await this.blob.slice(start, end).arrayBuffer());
    } catch (error) {
      throw new BadModelError(`${this.name}: it cannot be read any more (${error.message}); choose the file again`);
    }
  }

  release() {}

  /** Whether it is kept for the next time. */
  async finish() {
    return this.from === "cache";
  }

  close() {}

  /** Keeps nothing of it. */
  async discard() {
    if (this.url) await forgetModel(this.url);
  }
}

async function sha256Of(file, { report, hasher }) {
  const hash = hasher();
  try {
    for (let at = 0; at < file.length; at += PIECE) {
      hash.update(await file.read(at, Math.min(at + PIECE, file.length)));
      report({ stage: "verify", from: file.from, loaded: Math.min(at + PIECE, file.length), total: file.length });
    }
    return hash.digest();
  } finally {
    hash.free();
  }
}

export const corrupt = ({ name }, why) => `the kept copy of ${name} is corrupt (${why}): it is fetched anew`;

/** The sum of a kept copy: what was found once, as long as nobody has written to it since. */
async function keptSum({ facts, file: { lastModified: modified } }, file, wanted, options) {
  if (facts.verified?.modified === modified) return facts.verified.sha256;
  const sha256 = await sha256Of(file, options);
  if (sha256 === wanted) await noteKept(file.url, { ...facts, verified: { sha256, modified } });
  return sha256;
}

/** The kept copy of a model, if there is one that can be trusted. */
async function keptFile(url, { sha256, warn, signal, ...rest }) {
  const copy = await kept(url);
  if (!copy) return undefined;
  const file = new BlobFile(copy.file, nameOf(url), "cache", signal);
  file.url = url;
  const whole = copy.facts.total === file.length;
  let why = `it has ${file.length} bytes instead of ${copy.facts.total}`;
  if (whole) {
    try {
      const found = sha256 && (await keptSum(copy, file, sha256, rest));
      if (found === sha256) return file;
      why = `its sha256 is ${found}`;
    } catch (error) {
      if (error?.code !== "bad-model") throw error;
      why = error.message;
    }
  }
  warn(corrupt(file, why));
  await file.discard();
  return undefined;
}

/**
 * All files of one model, of which the wasm asks for the others by name where it is split. What is done with the model is
 * done with each of them.
 */
class Shards {
  #files;
  #open;

  constructor(named, open) {
    this.#files = [named];
    this.#open = open;
    this.name = named.name;
    this.from = named.from;
  }

  /** Bytes of all files that have been asked for. */
  get total() {
    return this.#files.reduce((sum, { length }) => sum + length, 0);
  }

  get length() {
    return this.#files[0].length;
  }

  read(start, end) {
    return this.#files[0].read(start, end);
  }

  release(end) {
    this.#files[0].release(end);
  }

  /** Another file of the model. */
  async sibling(name) {
    const file = await this.#open(name);
    this.#files.push(file);
    if (file.from === "network") this.from = "network";
    return file;
  }

  async finish() {
    const kept = [];
    for (const file of this.#files) kept.push(await file.finish());
    return kept.every(Boolean);
  }

  close() {
    for (const file of this.#files) file.close();
  }

  async discard() {
    for (const file of this.#files) await file.discard();
  }
}

/** What the other files of a model are found by: those given beside it, or its address. */
function siblingsOf(model, others, options) {
  // The sum is of the file that was named, and progress is told of all once the weights come.
  const rest = { ...options, sha256: undefined, report: () => {}, yields: true };
  if (model instanceof Blob) {
    return async (name) => {
      const found = others.find((other) => other.name === name);
      if (found) return openFile(found, rest);
      throw new BadModelError(
        `${model.name ?? "the model"} is one file of a split model, and ${name} is not among those that were given; choose ` +
          "all of its files together",
      );
    };
  }
  return (name) => {
    const url = new URL(model);
    url.pathname = url.pathname.replace(/[^/]*$/, encodeURIComponent(name));
    return openFile(url.href, rest);
  };
}

/** `model`: a URL, a Blob, or several Blobs of one model. `options`: { keep, sha256, signal, report, warn, hasher }. */
export async function openModel(model, options) {
  const [named, ...others] = [model].flat();
  return new Shards(await openFile(named, options), siblingsOf(named, others, options));
}

async function openFile(model, options) {
  const { keep, sha256, signal } = options;
  if (model instanceof Blob) {
    const file = new BlobFile(model, model.name ?? "the model", "file", signal);
    if (sha256) {
      const found = await sha256Of(file, options);
      if (found !== sha256) throw new BadModelError(`${file.name}: its sha256 is ${found}, not ${sha256}; get it anew`);
    }
    return file;
  }
  const copy = keep && (await keptFile(model, options));
  if (copy) return copy;
  const download = new Download(model, nameOf(model), options);
  try {
    await download.start();
    return download;
  } catch (error) {
    download.close();
    throw signal?.aborted ? aborted() : asBrookletError(error);
  }
}
