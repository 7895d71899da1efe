// The life of several streams from one prompt: load, feed once, fork, stream side by side, pause, stop.

import { codeOf, macrotask, SLICE_MS } from "./engine.js";
import { createLife } from "./life.js";

export const createStories = (holder, on) => {
  const life = createLife(on.state);
  let forks = []; // the engine's own stream is the first story
  let streams = [];
  let load = null;
  let stopping = false;
  let slice = 0; // when the task began that their pieces come in with
  let breathing = null;

  /** What to wait for where all of them together have kept the page from its other work for long enough. */
  const breath = () => {
    if (performance.now() - slice > SLICE_MS)
      breathing ??= macrotask().then(() => {
        breathing = null;
        slice = performance.now();
      });
    return breathing;
  };

  const consume = async (stream, n) => {
    for (;;) {
      if (life.gate) {
        await life.gate;
        if (stopping) return;
      }
      const { value, done } = await stream.next();
      if (done) return on.end(n, stream.stats);
      on.piece(n, value, stream.stats);
      if (breath()) await breathing;
    }
  };

  const stopAll = () => Promise.all(streams.map((stream) => stream.stop().catch(() => {})));

  /** An error of one ends them all, and is thrown when all have ended. */
  const together = async () => {
    const ended = streams.map((stream, n) =>
      consume(stream, n).catch((error) => {
        stopping = true;
        life.release();
        stopAll();
        throw error;
      }),
    );
    const failed = (await Promise.allSettled(ended)).find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
  };

  const run = async ({ prompt, seeds, sampling }) => {
    const { engine } = holder;
    const { signal } = load;
    const tokens = prompt ? await engine.tokenize(prompt) : [];
    if (prompt) await engine.feed(prompt, { signal });
    while (forks.length < seeds.length - 1) forks.push(await engine.fork({ signal }));
    if (stopping) return;
    on.begin({ prompt, tokens });
    streams = [engine, ...forks].map((one, n) => one.stream("", { ...sampling(), seed: seeds[n] }));
    life.become("streaming");
    await together();
  };

  const work = async (order) => {
    if (stopping) return;
    const { signal } = load;
    const fresh = await holder.open(order.model, { ...order.cache, streams: order.seeds.length }, signal);
    if (!fresh) await holder.engine.reset(order.cache);
    holder.use("beside");
    if (stopping) return;
    on.prepared(holder.info, order);
    await run(order);
  };

  const attempt = async (order) => {
    const error = await work(order).then(
      () => null,
      (error) => error,
    );
    const code = error && codeOf(error);
    if (error) await holder.fails(code, life.state === "loading" && code !== "aborted");
    for (const fork of forks) await fork.unload().catch(() => {}); // of an engine that is gone there is nothing to free
    forks = [];
    streams = [];
    load = null;
    if (!error || code === "aborted") return life.become("stopped");
    console.warn(error);
    life.become("error");
    on.error(error, order);
  };

  return {
    get state() {
      return life.state;
    },
    start(order) {
      stopping = false;
      load = new AbortController();
      life.become("loading");
      return holder.queue(() => attempt(order));
    },
    pause: life.pause,
    async stop() {
      stopping = true;
      load?.abort();
      life.release();
      await stopAll();
    },
    /** The others end. */
    keep: (n) => Promise.all(streams.map((stream, at) => at !== n && stream.stop().catch(() => {}))),
  };
};
