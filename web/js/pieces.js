// What calls into an engine bring in batches, as an async iterator of pieces. It asks for a batch when somebody asks for a
// piece, and ends the work when nobody does.
import { AbortedError, aborted } from "./errors.js";

export class Pieces {
  /** When the work was begun, in milliseconds; undefined before. */
  begun;
  #batch = [];
  #taken = 0;
  #turn = Promise.resolve();
  #ended;
  #over = false;

  constructor(stats) {
    this.stats = { ...stats, stopReason: undefined };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  // What it is made of: `start` begins the work and may give a reason why there is nothing to come; `more` gives
  // `{ pieces, ended }`; `took` is told of each piece that is handed over; `leave` ends it early, `unseen` pieces of the last
  // batch having been taken by nobody; `failed` is told of an error.
  async start() {}
  async more() {}
  took() {}
  async leave() {}
  failed() {}

  /** One after another, also for a caller who does not wait. */
  next() {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #next() {
    const done = { value: undefined, done: true };
    try {
      while (this.#taken === this.#batch.length) {
        if (this.stats.stopReason) return done;
        if (this.#ended) {
          this.stats.stopReason = this.#ended;
          if (this.#ended === "aborted") throw aborted();
          return done;
        }
        await this.#fetch();
      }
    } catch (error) {
      if (this.#over) return done;
      this.stats.stopReason ??= error instanceof AbortedError ? "aborted" : "error";
      this.#batch = [];
      this.#taken = 0;
      this.failed(error);
      throw error;
    }
    const piece = this.#batch[this.#taken++];
    this.took(piece);
    return { value: piece, done: false };
  }

  async #fetch() {
    if (!this.begun) {
      this.begun = performance.now();
      this.#ended = await this.start();
      if (this.#ended) return;
    }
    const { pieces, ended } = await this.more();
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
    if (this.begun) await this.leave(unseen);
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

/** Tokens per second as a stream goes on: the first token's time is the prompt's, and a pause is nobody's. */
export class Rate {
  #busyMs = 0;
  #tokens = 0;

  /** After a batch of so many tokens that took `ms`, the first of all after `firstMs`. */
  add(tokens, ms, firstMs = 0) {
    this.#busyMs += this.#tokens === 0 ? ms - firstMs : ms;
    this.#tokens += tokens;
    return this.#busyMs > 0 ? (1000 * Math.max(0, this.#tokens - 1)) / this.#busyMs : 0;
  }
}
