// One engine, wherever it runs: in a worker (worker.js) or in the page (index.js).
import init, { Core, Hasher, kernels } from "./brooklet.js";
import { BadOptionError, InternalError, NoAdapterError, NoWebGpuError, UnsupportedError, aborted } from "./errors.js";
import { noWebGpu } from "./advice.js";
import { Grammars } from "./grammar.js";
import { corrupt, openModel } from "./source.js";
import { Talk } from "./talk.js";

/** Tokens are handed over at least this often, in milliseconds. */
const BATCH_MS = 30;

let wasm;

/** Compiled once for every engine of this thread. `assets`: the folder it lies in, where that is not this file's. */
async function ready(assets) {
  wasm ??= start(assets).catch((error) => {
    wasm = undefined;
    throw error;
  });
  return wasm;
}

async function start(assets) {
  const place = assets && new URL("brooklet_bg.wasm", assets).href;
  try {
    return await init(place && { module_or_path: place });
  } catch (error) {
    throw new InternalError(
      `brooklet_bg.wasm could not be loaded${place ? ` from ${place}` : ""} (${error.message}): check the connection; where a ` +
        "bundler or a host has moved the package's files, the option assets names the folder in which worker.js and " +
        "brooklet_bg.wasm lie",
      { cause: error },
    );
  }
}

const PROGRESS_MS = 33;

/** Passes on at most some thirty reports a second, none that goes back, and every one that ends a stage. */
function throttled(report) {
  let last = { at: 0 };
  return (progress) => {
    const at = performance.now();
    const { stage, loaded, total } = progress;
    if (stage === last.stage && loaded <= last.loaded && loaded > 0) return;
    if (loaded !== total && at - last.at < PROGRESS_MS) return;
    last = { at, stage, loaded };
    report(progress);
  };
}

/** The adapter, as far as the browser tells; wgpu 30 passes on less. */
async function adapterFacts() {
  if (!navigator.gpu) throw new NoWebGpuError(noWebGpu());
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new NoAdapterError(
      "WebGPU is here, but gives no adapter: the graphics driver may be on the browser's blocklist, or hardware " +
        "acceleration is off in its settings. In Chrome, chrome://gpu says why, and " +
        "chrome://flags/#enable-unsafe-webgpu lifts the blocklist",
    );
  }
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info ?? {};
  return {
    name: description || [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed",
    driver: [vendor, architecture].filter(Boolean).join(" "),
    cpu: Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter) || architecture === "swiftshader",
    subgroups: adapter.features.has("subgroups"),
  };
}

/** int8 activations are of a part of WGSL that a browser may lack. */
function expectBytes(cache) {
  const feature = "packed_4x8_integer_dot_product";
  if (cache?.activations === "int8" && !navigator.gpu.wgslLanguageFeatures?.has(feature))
    throw new UnsupportedError(`activations: "int8" needs WGSL's ${feature}, which this browser has not; leave it out`);
}

/** Loads under way; while there are some, `requestDevice` is ours. */
let loads = 0;
let requestDevice;

/** wgpu 30 cannot ask a browser for subgroups: during `work`, whoever asks for a device gets them too. */
async function withSubgroups(work) {
  const prototype = GPUAdapter.prototype;
  if (loads++ === 0) {
    requestDevice = prototype.requestDevice;
    prototype.requestDevice = function (descriptor = {}) {
      const requiredFeatures = [...(descriptor.requiredFeatures ?? [])];
      if (this.features.has("subgroups")) requiredFeatures.push("subgroups");
      return requestDevice.call(this, { ...descriptor, requiredFeatures });
    };
  }
  try {
    return await work();
  } finally {
    if (--loads === 0) prototype.requestDevice = requestDevice;
  }
}

/** One engine and its forks, once: after `unload` it cannot be used. */
export class Host {
  /** Streams by their numbers; 0 is the engine's own. */
  #seats = new Map();
  #device;
  #grammars;
  #unloaded = false;
  #loading;
  #last = 0;

  /** `of`: whose stream it is about. */
  call(method, args, { of = 0, signal, onEvent } = {}) {
    if (method === "load") return this.#load(args, signal, onEvent ?? (() => {}));
    const seat = this.#seats.get(of);
    const gone = of ? "this fork was unloaded; fork another" : "the engine is not loaded";
    if (!seat) return Promise.reject(new BadOptionError(gone));
    if (method === "fork") return seat.call((core) => this.#fork(core, seat), signal);
    if (method === "leave") return seat.call(() => this.#leave(of));
    if (method === "loseDevice") return Promise.resolve(this.#device.destroy());
    return seat.call(() => seat[method](args, signal), signal);
  }

  async #fork(core, seat) {
    const fork = await core.fork(JSON.stringify(seat.cache));
    const number = ++this.#last;
    const made = new Seat(fork, { ...seat.shared, cache: seat.cache });
    this.#seats.set(number, made);
    return { number, info: made.info() };
  }

  #leave(number) {
    this.#seats.get(number).free();
    this.#seats.delete(number);
  }

  async #load(args, signal, onEvent) {
    if (this.#loading || this.#seats.size)
      throw new BadOptionError("this worker has an engine already; start another worker");
    this.#loading = this.#loadModel(args, signal, onEvent);
    try {
      return await this.#loading;
    } finally {
      this.#loading = undefined;
    }
  }

  #mayGoOn(signal) {
    if (signal?.aborted || this.#unloaded) throw aborted();
  }

  async #loadModel({ model, keep, sha256, assets, cache, streams, tuning }, signal, onEvent) {
    this.#mayGoOn(signal);
    const adapter = JSON.stringify(await adapterFacts());
    expectBytes(cache);
    const { memory } = await ready(assets);
    const report = throttled((progress) => onEvent({ progress }));
    const warn = (warning) => onEvent({ warning });
    const options = { keep, sha256, signal, report, warn, hasher: () => new Hasher() };
    const loadFrom = async (file) => {
      const told = (loaded, weights) => {
        const { from, total } = file;
        report({ stage: "load", from, loaded: total - weights + loaded, total }); // the head is there already
        if (loaded === weights) report({ stage: "compile", from, loaded: total, total });
      };
      try {
        const core = await withSubgroups(() =>
          Core.load(file, adapter, JSON.stringify(cache), streams, JSON.stringify(tuning), told),
        );
        const grammars = (this.#grammars = new Grammars(core.tokens(), assets));
        const shared = { assets, memory, grammars, kept: false, over: () => this.#unloaded };
        const seat = new Seat(core, { ...shared, cache });
        this.#seats.set(0, seat);
        core.warnings().forEach(warn);
        this.#device = core.device();
        const tuned = core.tuned();
        if (tuned) onEvent({ tuned });
        seat.shared.kept = await file.finish();
        this.#mayGoOn(signal);
        if (seat.shared.kept && file.from === "network") onEvent({ kept: true });
      } catch (error) {
        this.#free();
        if (error?.code === "bad-model") await file.discard();
        throw error;
      } finally {
        file.close();
      }
    };
    const file = await openModel(model, options);
    try {
      await loadFrom(file);
    } catch (error) {
      if (error?.code !== "bad-model" || file.from !== "cache") throw error;
      warn(corrupt(file, error.message));
      await loadFrom(await openModel(model, options));
    }
    return this.#seats.get(0).info();
  }

  /** GPU memory is free when this returns. What is under way ends in its own time, and is told nothing more. */
  unload() {
    this.#unloaded = true;
    this.#device?.destroy();
    // A core that has panicked cannot be freed; the worker goes, and all of its memory.
    const under = [this.#loading, ...[...this.#seats.values()].map((seat) => seat.idle())];
    Promise.allSettled(under)
      .then(() => this.#free())
      .catch(() => {});
  }

  #free() {
    this.#device?.destroy();
    this.#device?.free();
    this.#seats.forEach((seat) => seat.free());
    this.#seats.clear();
    this.#grammars?.free();
    this.#device = this.#grammars = undefined;
  }
}

/** One stream over the engine's model. */
class Seat {
  #core;
  /** Calls run one after another: the core is in one state at a time. Those of other streams go on meanwhile. */
  #turn = Promise.resolve();
  /** What the stream under way has come to. */
  #stream;
  /** Conversations, one of which may have the cache. */
  #talk;

  /** `shared`: what is the engine's; `cache`: the cache that streams have. */
  constructor(core, { cache, ...shared }) {
    this.#core = core;
    this.shared = shared;
    this.cache = cache;
    this.#talk = new Talk(core, shared);
  }

  call(work, signal) {
    const turn = this.#turn.then(() => {
      this.#mayGoOn(signal);
      return work(this.#core);
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** When nothing is under way. */
  idle() {
    return this.#turn;
  }

  #mayGoOn(signal) {
    if (signal?.aborted || this.shared.over()) throw aborted();
  }

  #goesOn(signal) {
    return () => !signal?.aborted && !this.shared.over();
  }

  info() {
    const info = JSON.parse(this.#core.info());
    info.bytes.wasm = this.shared.memory.buffer.byteLength;
    return { ...info, kept: this.shared.kept };
  }

  free() {
    this.#core.free();
    this.#talk.free();
  }

  #place() {
    return { position: this.#core.position(), evicted: this.#core.evicted() };
  }

  tokenize({ text }) {
    return Array.from(this.#core.encode(text), (token) => ({ token, text: this.#core.piece(token) }));
  }

  async feed({ text }, signal) {
    await this.#takeBack();
    this.#stream = undefined;
    return (await this.#feed(text, signal)).length;
  }

  /** Feeds a text in passes between which an abort is heard. */
  async #feed(text, signal) {
    const ids = this.#core.encode(text);
    await this.#core.feed(ids, this.#goesOn(signal));
    this.#mayGoOn(signal);
    return ids;
  }

  /** A stream after a conversation begins anew, with the cache that streams have. */
  async #takeBack() {
    if (!this.#core.chatting()) return;
    this.#talk.leave();
    this.#stream = undefined;
    await this.#core.reset(JSON.stringify(this.cache));
  }

  async begin({ prompt, settings: { held, ...settings } }, signal) {
    const rules = held && (await this.shared.grammars.matcher(held));
    this.#mayGoOn(signal);
    await this.#takeBack();
    this.#stream = undefined;
    const start = performance.now();
    const nothingNew = prompt === "" && this.#core.position() > 0;
    const ids = nothingNew ? new Uint32Array() : await this.#feed(prompt, signal);
    const ms = performance.now() - start;
    this.#core.begin(JSON.stringify(settings), rules);
    const info = this.info();
    const { ring, window } = info.cache;
    // Everything that was not taken can be taken back (see `stop`): half of what the ring allows; the other half is
    // for the steps that the device is ahead.
    const most = Math.max(1, (ring - window) >> 1);
    this.#stream = { most, pieces: [] };
    return { promptTokens: ids.length, ms, info };
  }

  async next(_, signal) {
    const stream = this.#stream;
    if (!stream) throw new BadOptionError("this stream was ended by another, by feed or by reset");
    const start = performance.now();
    const goesOn = this.#goesOn(signal);
    stream.before = this.#core.last();
    const pieces = (stream.pieces = []);
    let ended;
    let firstMs;
    while (!ended && pieces.length < stream.most && (pieces.length === 0 || performance.now() - start < BATCH_MS)) {
      if (!goesOn()) {
        ended = "aborted";
        break;
      }
      const [text, token, reason] = await this.#core.next();
      firstMs ??= performance.now() - start;
      ended = reason;
      if (token !== undefined) pieces.push({ text, token, index: this.#core.position() - 1 });
      else if (text && pieces.length) pieces.at(-1).text += text;
      else if (text) pieces.push({ text, token: -1, index: this.#core.position() });
    }
    const ms = performance.now() - start;
    return { pieces, ended, ms, firstMs, ...this.#place(), wasmBytes: this.shared.memory.buffer.byteLength };
  }

  /** Ends the stream; the last `unseen` pieces were not taken, and have never been. */
  async stop({ unseen }) {
    const stream = this.#stream;
    this.#stream = undefined;
    if (!stream || !unseen) return this.#place();
    const seen = stream.pieces.length - unseen;
    const { index } = stream.pieces[seen];
    const last = stream.pieces[seen - 1]?.token ?? stream.before;
    // With them goes a token that has ended the text.
    if (last !== undefined) await this.#core.rewind(this.#core.position() - index, last);
    return this.#place();
  }

  async answer(args, signal) {
    expectBytes(args.options);
    this.#stream = undefined;
    const reply = await this.#talk.begin(args, this.#goesOn(signal));
    return { ...reply, info: this.info() };
  }

  async hear({ id }, signal) {
    const heard = await this.#talk.hear(id, BATCH_MS, this.#goesOn(signal));
    return { ...heard, wasmBytes: this.shared.memory.buffer.byteLength };
  }

  hush({ id }) {
    return this.#talk.hush(id);
  }

  window({ id }) {
    return this.#talk.window(id);
  }

  setPolicy({ policy }) {
    this.#core.set_policy(JSON.stringify(policy));
    return this.info();
  }

  async reset({ cache }) {
    expectBytes(cache);
    this.cache = cache ?? this.cache;
    this.#stream = undefined;
    // After a conversation there is no cache of a stream that could be emptied.
    const anew = cache ?? (this.#core.chatting() ? this.cache : undefined);
    this.#talk.leave();
    await this.#core.reset(anew && JSON.stringify(anew));
    return this.info();
  }
}

/** For tests: the name and source of every kernel. */
export async function kernelSources() {
  await ready();
  return JSON.parse(kernels());
}
