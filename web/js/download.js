// A model that is being downloaded, read while it comes. Bytes go to the kept part where there is one, else wait
// in memory until they have been read. What is interrupted goes on where it stopped.
import { NetworkError, aborted, asBrookletError } from "./errors.js";
import { Part } from "./store.js";

/** Bytes in memory that nobody has asked for yet; more are not fetched before somebody does. */
const MOST_AHEAD = 32 << 20;
/** A connection on which nothing is wanted for so long, in milliseconds, is given up where others wait for one. */
const IDLE_MS = 2000;
/** Waits between attempts, in milliseconds. */
const RETRIES = [250, 1000, 3000];

const rangeOf = (headers) => /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "");
/** What nobody will read is not sent on either. To cancel its body is not enough for Firefox, if the server says no more. */
const drop = (response) => response?.drop();
const mb = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;

export class Download {
  from = "network";
  length = 0;
  #url;
  #options;
  #abort = new AbortController();
  #part;
  /** Bytes that came so far, from the start of the file. */
  #have = 0;
  /** Those of them that are in the part; the others are in `#chunks`, each with its place. */
  #stored = 0;
  #chunks = [];
  #released = 0;
  #hash;
  #identity;
  #waiting = new Set();
  #wanted = 0;
  #failure;
  #gone;
  #done;

  constructor(url, name, options) {
    this.#url = url;
    this.name = name;
    this.#options = options;
    const { signal } = options;
    const abort = () => {
      this.#abort.abort();
      this.#tell();
    };
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) this.#abort.abort();
  }

  /** Resolves when the length is known. */
  async start() {
    const { sha256, hasher } = this.#options;
    await this.#openPart();
    if (sha256) this.#hash = hasher();
    let facts = this.#part?.facts();
    if (facts?.url !== this.#url || !(this.#part.size <= facts.total)) facts = undefined;
    if (facts) {
      this.#identity = facts.identity;
      this.#have = this.#stored = this.#part.size;
      this.length = facts.total;
    } else this.#part?.truncate(0);
    if (!facts || this.#have < this.length) {
      const response = await this.#request().catch((error) => {
        throw this.#network(error);
      });
      this.#noteLength(response);
      this.#hashStored();
      this.#done = this.#pump(response);
    } else {
      this.#hashStored();
      this.#done = this.#complete();
    }
    this.#done = this.#done.catch((error) => this.#fail(error));
    if (!this.length) {
      // A server that does not say how long it is: the end tells.
      await this.#done;
      if (this.#failure) throw this.#failure;
      this.length = this.#have;
    }
  }

  async #openPart() {
    const { keep, warn } = this.#options;
    if (!keep || !/^https?:/.test(this.#url)) return;
    try {
      this.#part = await Part.open(this.#url);
      if (!this.#part) warn(`${this.name} is being downloaded by another engine too; this download is not kept`);
    } catch (error) {
      warn(`${this.name} will not be kept in this browser: ${error.message}`);
    }
  }

  async #fetch(headers) {
    const cache = this.#part ? "no-store" : "default"; // one copy is enough
    const request = new AbortController();
    const abort = () => request.abort();
    if (this.#abort.signal.aborted) abort();
    this.#abort.signal.addEventListener("abort", abort, { once: true });
    const response = await fetch(this.#url, { headers, signal: request.signal, cache });
    response.drop = abort;
    if (response.ok || response.status === 416) return response;
    drop(response);
    const status = [response.status, response.statusText].filter(Boolean).join(" ");
    const error = new NetworkError(`${this.#url} answered ${status}; check the address`);
    error.final = response.status < 500 && response.status !== 429;
    throw error;
  }

  /** The rest of the file, from `#have` on. */
  async #request() {
    const headers = this.#have > 0 ? { Range: `bytes=${this.#have}-` } : {};
    let response = await this.#fetch(headers);
    const identity = response.headers.get("etag") ?? response.headers.get("last-modified") ?? undefined;
    // Some servers let other sites see no identity: then the length has to do.
    const total = this.#totalOf(response);
    const other = identity && this.#identity ? identity !== this.#identity : total && total !== this.length;
    const changed = this.#have > 0 && this.length > 0 && other;
    if (response.status === 416 || changed) {
      drop(response);
      if (this.#done) {
        const error = new NetworkError(`${this.#url} changed while it was loaded; load it again`);
        error.final = true;
        throw error;
      }
      this.#have = this.#stored = this.length = 0;
      this.#part?.truncate(0);
      response = await this.#fetch({});
    }
    this.#identity = identity;
    return response;
  }

  /** Bytes of the whole file, as far as this answer tells; else 0. */
  #totalOf({ status, headers }) {
    const said = Number(headers.get("content-length") ?? 0);
    if (status === 206) return Number(rangeOf(headers)?.[2] ?? 0) || (said && this.#have + said);
    return headers.get("content-encoding") ? 0 : said;
  }

  #noteLength(response) {
    // Where a server does not let the page see the range it sent, it is taken for the one that was asked for.
    const range = rangeOf(response.headers);
    response.from = response.status !== 206 ? 0 : range ? Number(range[1]) : this.#have;
    if (response.from !== 0 && response.from !== this.#have) {
      throw new NetworkError(`${this.#url} sent another part of the file than it was asked for`);
    }
    this.length ||= this.#totalOf(response);
    if (this.#part && this.length) {
      this.#part.note({ url: this.#url, total: this.length, identity: this.#identity, complete: false });
    }
  }

  /** What an earlier load left is part of the sum. */
  #hashStored() {
    if (!this.#hash) return;
    const piece = new Uint8Array(4 << 20);
    for (let at = 0; at < this.#stored; at += piece.length) {
      const bytes = piece.subarray(0, Math.min(piece.length, this.#stored - at));
      this.#part.read(bytes, at);
      this.#hash.update(bytes);
    }
  }

  async #pump(response) {
    for (let attempt = 0; ; attempt += 1) {
      const before = this.#have;
      try {
        if (!response) {
          response = await this.#request();
          this.#noteLength(response);
        }
        await this.#drain(response);
        if (!this.length || this.#have >= this.length) break;
        if (this.#ahead()) {
          // A browser has few connections to a server, and the other files of a model want theirs.
          drop(response);
          while (this.#ahead() && !this.#abort.signal.aborted) await this.#news();
          if (this.#abort.signal.aborted) throw aborted();
          [response, attempt] = [undefined, -1];
          continue;
        }
        throw new NetworkError(`${this.#url} ended after ${mb(this.#have)} of ${mb(this.length)}`);
      } catch (error) {
        drop(response);
        if (this.#abort.signal.aborted) throw aborted();
        if (this.#have > before) attempt = 0;
        if (error.final || attempt >= RETRIES.length) throw this.#network(error);
        await new Promise((resolve) => setTimeout(resolve, RETRIES[attempt]));
        if (this.#abort.signal.aborted) throw aborted();
      }
      response = undefined;
    }
    await this.#complete();
  }

  #network(error) {
    if (error instanceof NetworkError) return error;
    return new NetworkError(
      `${this.#url} could not be fetched (${error.message}): check the connection, and that the server allows other ` +
        "sites to read it (CORS)",
      { cause: error },
    );
  }

  async #drain(response) {
    // A server that ignores ranges sends what we have once more.
    let at = response.from;
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const known = Math.min(Math.max(this.#have - at, 0), value.length);
        at += value.length;
        if (known < value.length) this.#take(value.subarray(known));
        if (this.length && this.#have > this.length) {
          throw new NetworkError(`${this.#url} sent more than the ${mb(this.length)} it had promised`);
        }
        // Until the weights come, this is all there is to tell.
        if (this.#released === 0)
          this.#options.report({ stage: "load", from: this.from, loaded: this.#have, total: this.length });
        if (!this.length) continue;
        while (this.#ahead()) {
          if (!(await this.#news(this.#options.yields && IDLE_MS))) return;
          if (this.#abort.signal.aborted) throw aborted();
        }
      }
    } finally {
      reader.releaseLock(); // whoever gives the answer up can cancel it
    }
  }

  #take(bytes) {
    this.#hash?.update(bytes);
    if (this.#store(bytes)) this.#stored += bytes.length;
    else this.#chunks.push({ at: this.#have, bytes });
    this.#have += bytes.length;
    this.#tell();
  }

  #store(bytes) {
    if (!this.#part || this.#stored < this.#have) return false;
    try {
      this.#part.write(bytes, this.#have);
      return true;
    } catch (error) {
      const why = error.name === "QuotaExceededError" ? "there is no room for it" : error.message;
      this.#options.warn(`${this.name} will not be kept in this browser: ${why}`);
      return false;
    }
  }

  async #complete() {
    const { sha256 } = this.#options;
    const found = this.#hash?.digest();
    if (found !== sha256) {
      const error = new NetworkError(
        `${this.#url} has sha256 ${found}, not ${sha256}: the file there is another one or was damaged on its way`,
      );
      this.#fail(error); // before its bytes are gone
      this.#gone = this.discard();
      await this.#gone;
      throw error;
    }
    if (!this.#part || this.#stored < this.#have) return;
    const facts = { url: this.#url, total: this.#have, identity: this.#identity, complete: true };
    const modified = sha256 && (await this.#part.modified());
    this.#part?.note({ ...facts, verified: modified && { sha256, modified } });
  }

  #fail(error) {
    this.#failure ??= this.#abort.signal.aborted ? aborted() : asBrookletError(error);
    this.#tell();
  }

  /** Whether more has come than anybody has asked for yet, and than memory should hold. */
  #ahead() {
    return this.#have - Math.max(this.#stored, this.#released, this.#wanted) > MOST_AHEAD;
  }

  /** True at the next turn of things; false if there is none for `ms`, where that is given. */
  async #news(ms) {
    let tell, timer;
    const news = new Promise((resolve) => {
      this.#waiting.add((tell = () => resolve(true)));
      if (ms) timer = setTimeout(resolve, ms, false);
    });
    const came = await news;
    clearTimeout(timer);
    this.#waiting.delete(tell);
    return came;
  }

  #tell() {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  async read(start, end) {
    this.#wanted = Math.max(this.#wanted, end);
    this.#tell();
    while (this.#have < end && !this.#failure && !this.#abort.signal.aborted) await this.#news();
    if (this.#abort.signal.aborted) throw aborted();
    if (this.#failure) {
      await this.#gone; // whoever hears of it may end this worker
      throw this.#failure;
    }
    const out = new Uint8Array(end - start);
    if (start < this.#stored) {
      const bytes = out.subarray(0, Math.min(end, this.#stored) - start);
      if (this.#part.read(bytes, start) !== bytes.length)
        throw new NetworkError(`${this.name}: its kept part shrank; load it again`);
    }
    for (const { at, bytes } of this.#chunks) {
      const from = Math.max(start, at);
      const to = Math.min(end, at + bytes.length);
      if (from < to) out.set(bytes.subarray(from - at, to - at), from - start);
    }
    return out;
  }

  release(end) {
    this.#released = Math.max(this.#released, end);
    this.#chunks = this.#chunks.filter(({ at, bytes }) => at + bytes.length > end);
    this.#tell();
  }

  /** Waits for the rest of the file. Whether it is kept for the next time. */
  async finish() {
    this.release(this.length);
    this.#wanted = this.length;
    this.#tell();
    await this.#done;
    if (this.#failure) throw this.#failure;
    return Boolean(this.#part) && this.#stored === this.#have;
  }

  close() {
    this.#abort.abort();
    this.#tell();
    this.#hash?.free();
    this.#hash = undefined;
    // A part with a gap cannot be resumed.
    if (this.#stored < this.#have) this.discard();
    this.#part?.close();
    this.#part = undefined;
  }

  /** Keeps nothing of it. */
  async discard() {
    const part = this.#part;
    this.#part = undefined;
    await part?.remove();
  }
}
