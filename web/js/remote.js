// Calls into an engine: in a worker, or in the page itself. Nothing hangs: a worker that dies, or an engine that is
// unloaded, fails every call under way.
import { AbortedError, BadOptionError, BrookletError, InternalError, aborted, asBrookletError } from "./errors.js";

/** How long a worker has to give its GPU memory back, in milliseconds, before it is ended with all it holds. */
const UNLOAD_MS = 1000;

const unloaded = () => new BadOptionError("the engine was unloaded; load another");
const interrupted = () => new AbortedError("the engine was unloaded while it was at work");

function withResolvers() {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}

/** Calls that wait for an answer, each with its number. */
class Calls {
  #waiting = new Map();
  #last = 0;
  #over;

  /** Why there can be no more of them; undefined while there can. */
  get over() {
    return this.#over;
  }

  add(onEvent) {
    const id = ++this.#last;
    const { promise, resolve, reject } = withResolvers();
    this.#waiting.set(id, { resolve, reject, onEvent });
    return { id, promise: promise.finally(() => this.#waiting.delete(id)) };
  }

  get(id) {
    return this.#waiting.get(id);
  }

  /** Fails those under way with `error`; those that come later with `after`. */
  end(error, after = error) {
    this.#over ??= after;
    for (const { reject } of this.#waiting.values()) reject(error);
  }
}

export class Remote {
  #worker;
  #owned;
  #calls = new Calls();

  /** `owned`: whether the worker goes with the engine. */
  constructor(worker, assets, owned = !worker) {
    this.#owned = owned;
    this.#worker = worker ?? startWorker(assets);
    this.#worker.addEventListener("message", ({ data }) => this.#answer(data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault?.();
      // Of a server's socket the error is one of ours.
      const error =
        event.error instanceof BrookletError
          ? event.error
          : event.message
            ? new InternalError(`the engine's worker failed: ${event.message}`)
            : noScript(assets);
      this.#calls.end(error);
      this.close();
    });
    this.#worker.addEventListener("messageerror", () => {
      this.#calls.end(new InternalError("a message of the engine's worker could not be read"));
      this.close();
    });
  }

  call(method, args, { of, signal, onEvent } = {}) {
    if (this.#calls.over) return Promise.reject(this.#calls.over);
    if (signal?.aborted) return Promise.reject(aborted());
    const { id, promise } = this.#send(method, args, onEvent, of);
    const abort = () => this.#worker.postMessage({ brooklet: "abort", id });
    signal?.addEventListener("abort", abort);
    return promise.finally(() => signal?.removeEventListener("abort", abort));
  }

  #send(method, args, onEvent, of) {
    const { id, promise } = this.#calls.add(onEvent);
    this.#worker.postMessage({ brooklet: "call", id, of, method, args });
    return { id, promise };
  }

  #answer({ brooklet, id, result, error, event }) {
    const call = this.#calls.get(id);
    if (!call) return;
    if (brooklet === "event") call.onEvent?.(event);
    else if (brooklet === "error") call.reject(asBrookletError(error));
    else if (brooklet === "result") call.resolve(result);
  }

  /** Waits for nothing that is under way, and not for long for a worker that no longer answers. */
  async unload() {
    if (this.#calls.over) return;
    this.#calls.end(interrupted(), unloaded());
    let timer;
    const patience = new Promise((resolve) => (timer = setTimeout(resolve, UNLOAD_MS)));
    try {
      // A worker that fails now is on its way, too.
      await Promise.race([this.#send("unload", {}).promise.catch(() => {}), patience]);
    } finally {
      clearTimeout(timer);
      this.close();
    }
  }

  close() {
    if (this.#owned) this.#worker.terminate();
    this.#calls.end(unloaded());
  }
}

/** The same calls without a worker. */
export class Local {
  #host;
  #assets;
  #calls = new Calls();

  constructor(assets) {
    this.#assets = assets;
  }

  call(method, args, extra) {
    if (this.#calls.over) return Promise.reject(this.#calls.over);
    const { id, promise } = this.#calls.add();
    const { resolve, reject } = this.#calls.get(id);
    this.#run(method, args, extra).then(resolve, (error) => reject(asBrookletError(error)));
    return promise;
  }

  async #run(method, args, extra) {
    const { Host } = await import("./core.js").catch((error) => {
      throw new InternalError(`the engine's script, core.js, could not be loaded: ${error.message}`, { cause: error });
    });
    this.#host ??= new Host();
    return this.#host.call(method, args, extra);
  }

  async unload() {
    if (this.#calls.over) return;
    this.#calls.end(interrupted(), unloaded());
    this.#host?.unload();
    this.close();
  }

  close() {
    this.#calls.end(unloaded());
    this.#host = undefined;
  }
}

function noScript(assets, cause) {
  const place = assets ? ` from ${new URL("worker.js", assets).href}` : "";
  return new InternalError(
    `the engine's worker failed: its script, worker.js, could not be loaded${place}; where a bundler or a host has ` +
      "moved the package's files, the option assets names the folder in which worker.js and brooklet_bg.wasm lie",
    { cause },
  );
}

const OPTIONS = { type: "module", name: "brooklet" };

/** From another site, a CDN say: such a script may be imported, but not be a worker itself. */
const foreign = ({ protocol, origin }) => /^https?:$/.test(protocol) && origin !== globalThis.location?.origin;

function startWorker(assets) {
  try {
    const script = assets ? new URL("worker.js", assets) : new URL("./worker.js", import.meta.url);
    // Asked beforehand: Chromium throws where Firefox starts a worker that fails.
    if (foreign(script)) {
      const blob = new Blob([`import ${JSON.stringify(script.href)};`], { type: "text/javascript" });
      return new Worker(URL.createObjectURL(blob), OPTIONS);
    }
    // As bundlers know it: the address and the options spelt out in place.
    return assets
      ? new Worker(script, OPTIONS)
      : new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "brooklet" });
  } catch (error) {
    // A bundler that knows no `import.meta` leaves no address to start from.
    if (error instanceof TypeError) throw noScript(assets, error);
    throw error;
  }
}
