// A stream's life: load, stream, pause, stop.

import { codeOf, macrotask, SLICE_MS } from "./engine.js";
import { createLife } from "./life.js";

export const createSession = (holder, on) => {
  const life = createLife(on.state);
  let made = null; // the policy that the cache was last made with
  let stream = null;
  let load = null;
  let stopping = false;
  let rounds = 0;

  const prepare = async (model, cache) => {
    load = new AbortController();
    const fresh = await holder.open(model, cache, load.signal);
    if (!fresh) await holder.engine.reset(cache);
    holder.use("stream");
    made = cache.policy;
  };

  const consume = async () => {
    let slice = performance.now();
    for (;;) {
      if (life.gate) {
        await life.gate;
        if (stopping) return;
      }
      const { value, done } = await stream.next();
      if (done) return;
      on.piece(value, stream.stats);
      if (performance.now() - slice > SLICE_MS) {
        await macrotask();
        slice = performance.now();
      }
    }
  };

  const run = async (prompt, sampling, hidden) => {
    const { engine } = holder;
    const tokens = prompt ? await engine.tokenize(prompt) : [];
    if (stopping) return;
    on.begin({ prompt, tokens, hidden, info: engine.info });
    stream = engine.stream(prompt, sampling());
    life.become("streaming");
    await consume();
    on.end(stream.stats);
  };

  const attempt = async (work, retry) => {
    stopping = false;
    try {
      await work();
      life.become("stopped");
    } catch (error) {
      const code = codeOf(error);
      await holder.fails(code, life.state === "loading");
      if (code === "aborted") life.become("stopped");
      else {
        console.warn(error);
        life.become("error");
        on.error(error, retry);
      }
    } finally {
      stream = load = null;
    }
  };

  const guard = (work, retry) => holder.queue(() => attempt(work, retry));

  const start = (order) =>
    guard(async () => {
      rounds = 0;
      life.become("loading");
      await prepare(order.model, order.cache);
      if (stopping) return;
      on.prepared(holder.info, { keepText: Boolean(order.hidden) });
      await run(order.prompt, order.sampling, order.hidden);
    }, order);

  return {
    get state() {
      return life.state;
    },
    get info() {
      return holder.info;
    },
    get canContinue() {
      return Boolean(holder.engine);
    },
    /** Whether the cache still holds what the stream has said. */
    get holds() {
      return Boolean(holder.engine) && holder.user === "stream";
    },
    /** The sinks can be taken away and put back only in a cache that has them. */
    get canSwitch() {
      return this.holds && made === "streaming";
    },
    start,
    resume: (sampling) =>
      guard(() => {
        rounds++;
        // The same seed again would draw the same numbers again.
        const { seed, ...rest } = sampling;
        return run("", () => ({ ...rest, seed: (seed + rounds) >>> 0 }), true);
      }, null),
    pause: life.pause,
    async stop() {
      stopping = true;
      load?.abort();
      life.release();
      await stream?.stop().catch(() => {});
    },
    setPolicy: (policy) => holder.engine.setPolicy(policy),
  };
};
