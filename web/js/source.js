// Where a model comes from: a file at hand, a kept copy, or the network. All give the same to the wasm:
// `name`, `length`, `read(start, end)`, `release(end)`.
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
  const found = whole && sha256 ? await keptSum(copy, file, sha256, rest) : sha256;
  if (whole && found === sha256) return file;
  const why = whole ? `its sha256 is ${found}` : `it has ${file.length} bytes instead of ${copy.facts.total}`;
  warn(corrupt(file, why));
  await file.discard();
  return undefined;
}

/** `options`: { keep, sha256, signal, report, warn, hasher }. */
export async function openModel(model, options) {
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
