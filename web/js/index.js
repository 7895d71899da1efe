// brooklet: text from a language model on WebGPU, for ever. Types and documentation: index.d.ts.
import { AbortedError, BadOptionError, aborted } from "./errors.js";
import { cacheOptions, loadOptions, streamOptions } from "./options.js";
import { Local, Remote } from "./remote.js";

// Name by name: what only the package's own files share is not for others.
export {
  AbortedError,
  BadModelError,
  BadOptionError,
  BrookletError,
  DeviceLostError,
  InternalError,
  NetworkError,
  NoAdapterError,
  NoWebGpuError,
  OutOfMemoryError,
  UnsupportedError,
} from "./errors.js";
export { forgetModel, keptModels } from "./store.js";

/** Which kernels suit this device, as measured by earlier loads: a page has a place to keep that, a worker has not. */
const TUNED = "brooklet.tuned";

function keptTuning() {
  try {
    return globalThis.localStorage?.getItem(TUNED) ?? "";
  } catch {
    return ""; // storage is forbidden here: every load measures
  }
}

function keepTuning(text) {
  try {
    globalThis.localStorage?.setItem(TUNED, text);
  } catch {
    // forbidden, or full
  }
}

/** Asks the browser not to clear a kept model when space runs short: pages can ask, workers cannot. */
async function askToStay() {
  try {
    const { storage } = navigator;
    if (!(await storage.persisted())) await storage.persist();
  } catch {
    // there is nobody to ask here: it stays as long as the browser likes
  }
}

const loseDevice = Symbol.for("brooklet.test.loseDevice");

export class Engine {
  #remote;
  #info;
  #stream;

  constructor(key, remote, info) {
    if (key !== loseDevice) throw new TypeError("use Engine.load(options)");
    this.#remote = remote;
    this.#info = info;
  }

  static async load(options) {
    const { onProgress, onWarning = (message) => console.warn(`brooklet: ${message}`), signal, worker } = options ?? {};
    const { tune, ...args } = loadOptions(options);
    args.tuning = { tune, kept: keptTuning() };
    if (signal?.aborted) throw aborted();
    const { assets } = args;
    const remote = worker === false ? new Local() : new Remote(worker, assets);
    const onEvent = ({ progress, warning, tuned, kept }) => {
      if (progress) onProgress?.(progress);
      if (warning) onWarning(warning);
      if (tuned) keepTuning(tuned);
      if (kept) void askToStay();
    };
    try {
      return new Engine(loseDevice, remote, await remote.call("load", args, { signal, onEvent }));
    } catch (error) {
      remote.close();
      throw error;
    }
  }

  get info() {
    return this.#info;
  }

  stream(prompt = "", options = {}) {
    if (typeof prompt !== "string") throw new BadOptionError(`prompt: a string is wanted, not ${typeof prompt}`);
    const { signal, maxTokens = Infinity } = options;
    const settings = streamOptions(options);
    const before = this.#stream;
    const call = (method, args, extra) => this.#remote.call(method, args, extra);
    this.#stream = new TextStream(call, () => before?.stop(), { prompt, settings, maxTokens, signal });
    return this.#stream;
  }

  async feed(text, { signal } = {}) {
    if (typeof text !== "string") throw new BadOptionError(`feed: a string is wanted, not ${typeof text}`);
    await this.#stream?.stop();
    return this.#remote.call("feed", { text }, { signal });
  }

  tokenize(text) {
    return this.#remote.call("tokenize", { text: String(text) });
  }

  async setPolicy(policy) {
    this.#info = await this.#remote.call("setPolicy", { policy: cacheOptions({ policy }).policy });
  }

  async reset(options) {
    const cache = options && cacheOptions(options);
    await this.#stream?.stop();
    this.#stream = undefined;
    this.#info = await this.#remote.call("reset", { cache });
  }

  async unload() {
    this.#stream?.end("stopped");
    await this.#remote.unload();
  }

  /** For tests: the device goes away, as after a driver's reset. */
  [loseDevice]() {
    return this.#remote.call("loseDevice", {});
  }
}

class TextStream {
  #call;
  #before;
  #request;
  #begun;
  #batch = [];
  #taken = 0;
  #turn = Promise.resolve();
  #busyMs = 0;
  #ended;
  #over = false;

  constructor(call, before, request) {
    this.#call = call;
    this.#before = before;
    this.#request = request;
    this.stats = {
      promptTokens: 0,
      generatedTokens: 0,
      prefillTps: 0,
      decodeTps: 0,
      ttftMs: 0,
      position: 0,
      evicted: 0,
      seed: request.settings.seed,
      wasmBytes: 0,
      stopReason: undefined,
    };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** One after another, also for a caller who does not wait. */
  next() {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #next() {
    try {
      while (this.#taken === this.#batch.length) {
        if (this.stats.stopReason) return { value: undefined, done: true };
        if (this.#ended) {
          this.stats.stopReason = this.#ended;
          if (this.#ended === "aborted") throw aborted();
          return { value: undefined, done: true };
        }
        await this.#fetch();
      }
    } catch (error) {
      if (this.#over) return { value: undefined, done: true };
      this.stats.stopReason ??= error instanceof AbortedError ? "aborted" : "error";
      this.#batch = [];
      this.#taken = 0;
      throw error;
    }
    const piece = this.#batch[this.#taken++];
    if (piece.token >= 0) this.stats.generatedTokens += 1;
    return { value: piece, done: false };
  }

  async #fetch() {
    const { signal } = this.#request;
    if (!this.#begun) {
      this.#begun = performance.now();
      await this.#before();
      const { prompt, settings, maxTokens } = this.#request;
      const { promptTokens, ms } = await this.#call("begin", { prompt, settings, maxTokens }, { signal });
      this.stats.promptTokens = promptTokens;
      this.stats.prefillTps = ms > 0 ? (1000 * promptTokens) / ms : 0;
    }
    const { pieces, ended, ms, firstMs, position, evicted, wasmBytes } = await this.#call("next", {}, { signal });
    const stats = this.stats;
    const before = stats.generatedTokens;
    if (before === 0) stats.ttftMs = performance.now() - this.#begun - (ms - firstMs);
    // The first token's time is the prompt's. A pause is nobody's.
    this.#busyMs += before === 0 ? ms - firstMs : ms;
    stats.decodeTps = this.#busyMs > 0 ? (1000 * (before + pieces.length - 1)) / this.#busyMs : 0;
    Object.assign(stats, { position, evicted, wasmBytes });
    this.#batch = pieces;
    this.#taken = 0;
    this.#ended = ended;
  }

  async stop() {
    if (this.stats.stopReason) return;
    this.stats.stopReason = "stopped";
    await this.#turn;
    const unseen = this.#batch.length - this.#taken;
    this.#batch = [];
    this.#taken = 0;
    if (!this.#begun) return;
    const { position, evicted } = await this.#call("stop", { unseen });
    Object.assign(this.stats, { position, evicted });
  }

  /** Ends it without a word to the engine, which is about to go. */
  end(reason) {
    this.#over = true;
    this.stats.stopReason ??= reason;
  }

  async return() {
    await this.stop();
    return { value: undefined, done: true };
  }
}
