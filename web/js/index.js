// brooklet: text from a language model on WebGPU, for ever. Types and documentation: index.d.ts.
import { Completions } from "./completions.js";
import { EngineSocket, socketOf } from "./connect.js";
import { Conversation } from "./conversation.js";
import { BadOptionError, aborted } from "./errors.js";
import { cacheOptions, connectOptions, conversationOptions, loadOptions, streamOptions } from "./options.js";
import { Pieces, Rate } from "./pieces.js";
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
  /** Which of the model's streams is this one's; 0 is that of the engine which was loaded. */
  #of;
  #info;
  /** The stream or the answer that was begun last. */
  #speaking;
  #completions;

  constructor(key, remote, info, of = 0) {
    if (key !== loseDevice) throw new TypeError("use Engine.load(options)");
    this.#remote = remote;
    this.#info = info;
    this.#of = of;
  }

  #call(method, args, extra) {
    return this.#remote.call(method, args, { of: this.#of, ...extra });
  }

  async fork({ signal } = {}) {
    const { number, info } = await this.#call("fork", {}, { signal });
    return new Engine(loseDevice, this.#remote, info, number);
  }

  static async load(options) {
    const { onProgress, onWarning = (message) => console.warn(`brooklet: ${message}`), signal, worker } = options ?? {};
    const { tune, ...args } = loadOptions(options);
    args.tuning = { tune, kept: keptTuning() };
    if (signal?.aborted) throw aborted();
    const { assets } = args;
    const remote = worker === false ? new Local() : new Remote(worker, assets);
    return Engine.#begin(remote, args, { onProgress, onWarning, signal });
  }

  static async connect(url, options) {
    const { onProgress, onWarning = (message) => console.warn(`brooklet: ${message}`), signal } = options ?? {};
    const { server, args } = connectOptions(url, options);
    if (signal?.aborted) throw aborted();
    const remote = new Remote(new EngineSocket(socketOf(server)), undefined, true);
    return Engine.#begin(remote, args, { onProgress, onWarning, signal });
  }

  static async #begin(remote, args, { onProgress, onWarning, signal }) {
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
    const { signal } = options;
    const settings = streamOptions(options);
    return this.#speak((call, before) => new TextStream(call, before, { prompt, settings, signal }));
  }

  /** Makes what speaks next: it ends what spoke before, once it is asked for its first piece. */
  #speak(make) {
    const before = this.#speaking;
    const call = async (method, args, extra) => {
      const reply = await this.#call(method, args, extra);
      this.#info = reply?.info ?? this.#info;
      return reply;
    };
    this.#speaking = make(call, () => before?.stop());
    return this.#speaking;
  }

  conversation(options = {}) {
    const window = async (args) => this.#call("window", args);
    return new Conversation((make) => this.#speak(make), window, conversationOptions(options));
  }

  get chat() {
    this.#completions ??= new Completions(this);
    return { completions: this.#completions };
  }

  async feed(text, { signal } = {}) {
    if (typeof text !== "string") throw new BadOptionError(`feed: a string is wanted, not ${typeof text}`);
    await this.#speaking?.stop();
    return this.#call("feed", { text }, { signal });
  }

  tokenize(text) {
    return this.#call("tokenize", { text: String(text) });
  }

  async setPolicy(policy) {
    this.#info = await this.#call("setPolicy", { policy: cacheOptions({ policy }).policy });
  }

  async reset(options) {
    const cache = options && cacheOptions(options);
    await this.#speaking?.stop();
    this.#speaking = undefined;
    this.#info = await this.#call("reset", { cache });
  }

  async unload() {
    this.#speaking?.end("stopped");
    if (!this.#of) return this.#remote.unload();
    await this.#speaking?.stop().catch(() => {});
    await this.#call("leave", {}).catch(() => {}); // with the engine it is gone already
  }

  /** For tests: the device goes away, as after a driver's reset. */
  [loseDevice]() {
    return this.#call("loseDevice", {});
  }
}

class TextStream extends Pieces {
  #call;
  #before;
  #request;
  #rate = new Rate();

  constructor(call, before, request) {
    const { seed } = request.settings;
    const none = {
      promptTokens: 0,
      generatedTokens: 0,
      prefillTps: 0,
      decodeTps: 0,
      ttftMs: 0,
      position: 0,
      evicted: 0,
    };
    super({ ...none, seed, wasmBytes: 0 });
    this.#call = call;
    this.#before = before;
    this.#request = request;
  }

  async start() {
    await this.#before();
    const { prompt, settings, signal } = this.#request;
    const { promptTokens, ms } = await this.#call("begin", { prompt, settings }, { signal });
    this.stats.promptTokens = promptTokens;
    this.stats.prefillTps = ms > 0 ? (1000 * promptTokens) / ms : 0;
  }

  async more() {
    const { signal } = this.#request;
    const { pieces, ended, ms, firstMs, ...place } = await this.#call("next", {}, { signal });
    const stats = this.stats;
    if (stats.generatedTokens === 0) stats.ttftMs = performance.now() - this.begun - (ms - firstMs);
    stats.decodeTps = this.#rate.add(pieces.length, ms, firstMs);
    Object.assign(stats, place);
    return { pieces, ended };
  }

  took({ token }) {
    if (token >= 0) this.stats.generatedTokens += 1;
  }

  async leave(unseen) {
    Object.assign(this.stats, await this.#call("stop", { unseen }));
  }
}
