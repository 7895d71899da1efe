// A conversation: what was said in it, and the answers that are being said. Which conversation has the engine's cache is
// for talk.js to know.
import { AbortedError, BadOptionError } from "./errors.js";
import { answerOptions } from "./options.js";
import { Pieces, Rate } from "./pieces.js";

let last = 0;
const ignored = () => {};

const copy = (messages) => messages.map((message) => ({ ...message }));

export class Conversation {
  #id = ++last;
  #speak;
  #window;
  #options;
  #messages;
  #seen;

  constructor(speak, window, { messages = [], ...options }) {
    this.#speak = speak;
    this.#window = window;
    this.#options = options;
    this.#messages = messages;
  }

  get system() {
    return this.#options.system ?? "";
  }

  get messages() {
    return copy(this.#messages);
  }

  send(text, options = {}) {
    return this.#answer("send", said("send", text), this.#messages.length, options);
  }

  regenerate(options = {}) {
    const at = this.#lastTurn();
    return this.#answer("regenerate", this.#messages[at].content, at, options);
  }

  edit(text, options = {}) {
    return this.#answer("edit", said("edit", text), this.#lastTurn(), options);
  }

  #lastTurn() {
    const at = this.#messages.findLastIndex(({ role }) => role === "user");
    if (at < 0) throw new BadOptionError("there is no turn to take back: say something first");
    return at;
  }

  #answer(how, text, at, options) {
    const { think = this.#options.think, settings } = answerOptions(options);
    const { template, think: _, ...cache } = this.#options;
    const conversation = { id: this.#id, options: cache, template, think };
    const turn = { how, text, settings, ...conversation };
    const log = {
      goesOn: () => at > 0,
      before: () => this.#messages.slice(0, at),
      begin: () => {
        this.#messages.splice(at);
        this.#messages.push({ role: "user", content: text }, { role: "assistant", content: "" });
        return this.#messages.at(-1);
      },
      // Nothing was said: as if there had been no turn.
      drop: () => this.#messages.splice(at),
      saw: (window) => (this.#seen = window),
    };
    return this.#speak((call, before) => new Answer(call, before, turn, log, options.signal));
  }

  /** As it is now, or as it was when it last had the cache. */
  async window() {
    this.#seen = (await this.#window({ id: this.#id })) ?? this.#seen;
    return this.#seen ?? { pinned: 0, window: 0, tokens: 0, forgotten: 0, gone: 0, messages: [] };
  }

  export() {
    const { system, template } = this.#options;
    const first = system ? [{ role: "system", content: system }] : [];
    return { ...(template && { template }), messages: [...first, ...copy(this.#messages)] };
  }
}

function said(name, text) {
  if (typeof text !== "string") throw new BadOptionError(`${name}: a string is wanted, not ${typeof text}`);
  if (!text.trim()) throw new BadOptionError(`${name}: there is nothing in the message`);
  return text;
}

class Answer extends Pieces {
  #call;
  #before;
  #turn;
  #log;
  #message;
  #rate = new Rate();
  /** Ends the reading of the prompt: by `stop`, or because the caller's signal says so. */
  #abort = new AbortController();
  #signal;

  constructor(call, before, turn, log, signal) {
    const none = { fed: 0, generatedTokens: 0, prefillTps: 0, decodeTps: 0, ttftMs: 0, position: 0, forgotten: 0 };
    super({ ...none, window: undefined, leftOut: 0, retold: false, seed: turn.settings.seed, wasmBytes: 0 });
    this.#call = call;
    this.#before = before;
    this.#turn = turn;
    this.#log = log;
    this.#signal = signal;
    if (signal?.aborted) this.#abort.abort();
    signal?.addEventListener("abort", () => this.#abort.abort(), { once: true });
  }

  async start() {
    await this.#before();
    const ask = (before) => this.#call("answer", { ...this.#turn, before }, { signal: this.#abort.signal });
    let reply;
    try {
      // What was said before is told where it is needed alone: a turn costs the same however long the conversation is.
      reply = await ask(this.#turn.how === "send" && this.#log.goesOn() ? undefined : this.#log.before());
      if (reply.untold) reply = await ask(this.#log.before());
    } catch (error) {
      if (error instanceof AbortedError && this.#abort.signal.aborted) return this.#unsaid();
      throw error;
    }
    if (!reply.begun) return this.#unsaid();
    const { fed, ms, retold, leftOut } = reply;
    Object.assign(this.stats, { fed, retold, leftOut, prefillTps: ms > 0 ? (1000 * fed) / ms : 0 });
    this.#message = this.#log.begin();
    return undefined;
  }

  #unsaid() {
    return this.#signal?.aborted ? "aborted" : "stopped";
  }

  async more() {
    const { id } = this.#turn;
    let reply;
    try {
      reply = await this.#call("hear", { id }, { signal: this.#signal });
    } catch (error) {
      // What was made and not heard is said, unless the engine is gone.
      if (error instanceof AbortedError) await this.#call("hush", { id }).then((rest) => this.#heard(rest), ignored);
      throw error;
    }
    const { pieces, ended, ms, firstMs } = reply;
    const stats = this.stats;
    const before = stats.generatedTokens;
    if (before === 0) stats.ttftMs = performance.now() - this.begun - (ms - firstMs);
    this.#heard(reply);
    stats.decodeTps = this.#rate.add(stats.generatedTokens - before, ms, firstMs);
    return { pieces, ended };
  }

  /** The message has all that the model has said, also what nobody has taken yet. */
  #heard({ pieces, position, forgotten, generatedTokens, window, wasmBytes }) {
    for (const { text, thought } of pieces) {
      if (thought) this.#message.thoughts = (this.#message.thoughts ?? "") + text;
      else this.#message.content += text;
    }
    const { stats } = this;
    Object.assign(stats, { position, forgotten });
    stats.generatedTokens = generatedTokens ?? stats.generatedTokens;
    stats.window = window ?? stats.window;
    stats.wasmBytes = wasmBytes ?? stats.wasmBytes;
    if (window) this.#log.saw(window);
  }

  failed() {
    if (this.#message && !this.#message.content && !this.#message.thoughts) this.#log.drop();
  }

  async stop() {
    if (!this.#message) this.#abort.abort();
    await super.stop();
  }

  async leave() {
    if (this.#message) this.#heard(await this.#call("hush", { id: this.#turn.id }));
  }
}
