// brooklet: text from a language model on WebGPU, for ever. Types and documentation: index.d.ts.
import { AbortedError, BadOptionError, InternalError, aborted, asBrookletError } from "./errors.js";
import { cacheOptions, loadOptions, streamOptions } from "./options.js";

export * from "./errors.js";
export { forgetModel, keptModels } from "./store.js";

/** Calls into a worker. Nothing hangs: a worker that dies fails every call under way. */
class Remote {
  #worker;
  #owned;
  #calls = new Map();
  #last = 0;
  #dead;

  constructor(worker) {
    this.#owned = !worker;
    this.#worker = worker ?? startWorker();
    this.#worker.addEventListener("message", ({ data }) => this.#answer(data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault?.();
      this.#die(new InternalError(`the engine's worker failed: ${event.message || "its script could not be loaded"}`));
    });
    this.#worker.addEventListener("messageerror", () =>
      this.#die(new InternalError("a message of the engine's worker could not be read")),
    );
  }

  call(method, args, { signal, onEvent } = {}) {
    if (this.#dead) return Promise.reject(this.#dead);
    if (signal?.aborted) return Promise.reject(aborted());
    const id = ++this.#last;
    const { promise, resolve, reject } = withResolvers();
    const abort = () => this.#worker.postMessage({ brooklet: "abort", id });
    signal?.addEventListener("abort", abort);
    this.#calls.set(id, { resolve, reject, onEvent });
    this.#worker.postMessage({ brooklet: "call", id, method, args });
    return promise.finally(() => {
      this.#calls.delete(id);
      signal?.removeEventListener("abort", abort);
    });
  }

  #answer({ brooklet, id, result, error, event }) {
    const call = this.#calls.get(id);
    if (!call) return;
    if (brooklet === "event") call.onEvent?.(event);
    else if (brooklet === "error") call.reject(asBrookletError(error));
    else if (brooklet === "result") call.resolve(result);
  }

  #die(error) {
    this.#dead = error;
    for (const { reject } of this.#calls.values()) reject(error);
    this.close();
  }

  close() {
    if (this.#owned) this.#worker.terminate();
    this.#dead ??= unloaded();
  }
}

/** The same calls without a worker. */
class Local {
  #host;
  #closed;

  async call(method, args, { signal, onEvent } = {}) {
    if (this.#closed) throw unloaded();
    const { Host } = await import("./core.js");
    this.#host ??= new Host();
    try {
      return await this.#host.call(method, args, { signal, onEvent });
    } catch (error) {
      throw asBrookletError(error);
    }
  }

  close() {
    this.#closed = true;
    this.#host = undefined;
  }
}

const unloaded = () => new BadOptionError("the engine was unloaded; load another");

function withResolvers() {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}

function startWorker() {
  try {
    // As bundlers know it: the address and the options spelt out in place.
    return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "brooklet" });
  } catch (error) {
    if (error.name !== "SecurityError") throw error;
    // From another site, a CDN say: such a script may be imported, but not be a worker itself.
    const script = `import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`;
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    return new Worker(url, { type: "module", name: "brooklet" });
  }
}

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
    const remote = worker === false ? new Local() : new Remote(worker);
    const onEvent = ({ progress, warning, tuned }) => {
      if (progress) onProgress?.(progress);
      if (warning) onWarning(warning);
      if (tuned) keepTuning(tuned);
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
    try {
      await this.#remote.call("unload", {});
    } catch (error) {
      if (!(error instanceof BadOptionError)) throw error; // twice is no harm
    } finally {
      this.#remote.close();
    }
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

  /** Ends it without a word to the engine. */
  end(reason) {
    this.stats.stopReason ??= reason;
  }

  async return() {
    await this.stop();
    return { value: undefined, done: true };
  }
}
