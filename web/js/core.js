// One engine, wherever it runs: in a worker (worker.js) or in the page (index.js).
import init, { Core, Hasher, kernels } from "./brooklet.js";
import { NoAdapterError, NoWebGpuError, BadOptionError, UnsupportedError, aborted } from "./errors.js";
import { noWebGpu } from "./advice.js";
import { corrupt, openModel } from "./source.js";

/** Tokens are handed over at least this often, in milliseconds. */
const BATCH_MS = 30;
/** Tokens of a prompt between two looks at the abort signal, in chunks. */
const CHUNKS_AT_ONCE = 4;

let wasm;

/** Compiled once for every engine of this thread. */
async function ready() {
  wasm ??= init().catch((error) => {
    wasm = undefined;
    throw error;
  });
  return wasm;
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

export class Host {
  #core;
  #memory;
  #kept = false;
  /** Calls run one after another: the core is in one state at a time. */
  #turn = Promise.resolve();
  /** What the stream under way has come to. */
  #stream;

  call(method, args, { signal, onEvent } = {}) {
    const turn = this.#turn.then(() => {
      if (signal?.aborted) throw aborted();
      if (method === "load") return this.#load(args, signal, onEvent ?? (() => {}));
      if (!this.#core) throw new BadOptionError("the engine is not loaded");
      return this[method](args, signal);
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #load({ model, keep, sha256, cache, tuning }, signal, onEvent) {
    if (this.#core) throw new BadOptionError("this worker has an engine already; start another worker");
    const adapter = JSON.stringify(await adapterFacts());
    expectBytes(cache);
    const { memory } = await ready();
    this.#memory = memory;
    const report = throttled((progress) => onEvent({ progress }));
    const warn = (warning) => onEvent({ warning });
    const options = { keep, sha256, signal, report, warn, hasher: () => new Hasher() };
    const loadFrom = async (file) => {
      const { from, length: total } = file;
      const told = (loaded, weights) => {
        report({ stage: "load", from, loaded: total - weights + loaded, total }); // the head is there already
        if (loaded === weights) report({ stage: "compile", from, loaded: total, total });
      };
      try {
        const core = await withSubgroups(() =>
          Core.load(file, adapter, JSON.stringify(cache), JSON.stringify(tuning), told),
        );
        this.#core = core;
        core.warnings().forEach(warn);
        const tuned = core.tuned();
        if (tuned) onEvent({ tuned });
        this.#kept = await file.finish();
        if (signal?.aborted) throw aborted();
      } catch (error) {
        if (this.#core) this.unload();
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
    return this.#info();
  }

  #info() {
    const info = JSON.parse(this.#core.info());
    info.bytes.wasm = this.#memory.buffer.byteLength;
    return { ...info, kept: this.#kept };
  }

  #place() {
    return { position: this.#core.position(), evicted: this.#core.evicted() };
  }

  tokenize({ text }) {
    return Array.from(this.#core.encode(text), (token) => ({ token, text: this.#core.piece(token) }));
  }

  async feed({ text }, signal) {
    this.#stream = undefined;
    return (await this.#feed(text, signal)).length;
  }

  /** Feeds a text in pieces between which an abort is heard. */
  async #feed(text, signal) {
    const ids = this.#core.encode(text);
    const { policy, chunk } = this.#info().cache;
    const step = policy === "recompute" ? ids.length : CHUNKS_AT_ONCE * chunk;
    for (let at = 0; at < ids.length; at += step) {
      if (signal?.aborted) throw aborted();
      await this.#core.feed(ids.subarray(at, at + step));
    }
    return ids;
  }

  async begin({ prompt, settings, maxTokens }, signal) {
    this.#stream = undefined;
    const start = performance.now();
    const nothingNew = prompt === "" && this.#core.position() > 0;
    const ids = nothingNew ? new Uint32Array() : await this.#feed(prompt, signal);
    const ms = performance.now() - start;
    this.#core.begin(JSON.stringify(settings), ids);
    const { ring, window } = this.#info().cache;
    // Everything that was not taken can be taken back (see `stop`): half of what the ring allows; the other half is
    // for the steps that the device is ahead.
    const most = Math.max(1, (ring - window) >> 1);
    this.#stream = { left: maxTokens, most, before: ids.at(-1), tokens: [], stopAtEos: settings.stopAtEos };
    return { promptTokens: ids.length, ms };
  }

  async next(_, signal) {
    const stream = this.#stream;
    if (!stream) throw new BadOptionError("this stream was ended by another, by feed or by reset");
    const start = performance.now();
    stream.before = stream.tokens.at(-1) ?? stream.before;
    stream.tokens = [];
    const pieces = [];
    let ended;
    let firstMs;
    while (!ended && pieces.length < stream.most && (pieces.length === 0 || performance.now() - start < BATCH_MS)) {
      ended = signal?.aborted ? "aborted" : stream.left === 0 ? "length" : undefined;
      if (ended) break;
      const token = await this.#core.next();
      firstMs ??= performance.now() - start;
      if (token === undefined) ended = "cache full";
      else {
        stream.tokens.push(token);
        if (stream.stopAtEos && this.#core.is_end(token)) ended = "end of text";
        else {
          stream.left -= 1;
          pieces.push({ text: this.#core.shown(token), token, index: this.#core.position() - 1 });
          if (this.#core.stop_met()) ended = "stop";
          else if (stream.left === 0) ended = "length";
        }
      }
    }
    if (ended && ended !== "stop") {
      const rest = this.#core.finish();
      if (rest && pieces.length) pieces.at(-1).text += rest;
      else if (rest) pieces.push({ text: rest, token: -1, index: this.#core.position() });
    }
    stream.pieces = pieces.length;
    const ms = performance.now() - start;
    return { pieces, ended, ms, firstMs, ...this.#place(), wasmBytes: this.#memory.buffer.byteLength };
  }

  /** Ends the stream; the last `unseen` pieces were not taken, and have never been. */
  async stop({ unseen }) {
    const stream = this.#stream;
    this.#stream = undefined;
    if (stream && unseen > 0) {
      const seen = stream.pieces - unseen;
      const last = stream.tokens[seen - 1] ?? stream.before;
      if (last !== undefined) await this.#core.rewind(stream.tokens.length - seen, last);
    }
    return this.#place();
  }

  setPolicy({ policy }) {
    this.#core.set_policy(JSON.stringify(policy));
    return this.#info();
  }

  async reset({ cache }) {
    expectBytes(cache);
    this.#stream = undefined;
    await this.#core.reset(cache && JSON.stringify(cache));
    return this.#info();
  }

  unload() {
    this.#core.destroy();
    this.#core.free();
    this.#core = undefined;
  }

  loseDevice() {
    this.#core.destroy();
  }
}

/** For tests: the name and source of every kernel. */
export async function kernelSources() {
  await ready();
  return JSON.parse(kernels());
}
