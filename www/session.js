// The engine's life: load, stream, pause, stop. Pausing is not asking for the next token.

const SLICE_MS = 12;

const macrotask = () =>
  new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      done();
    };
    port2.postMessage(0);
  });

const latch = () => {
  let open;
  const opened = new Promise((done) => {
    open = done;
  });
  return { opened, open };
};

export const createSession = (brooklet, on) => {
  let engine = null;
  let key = null;
  let made = null; // the cache the engine was last made with
  let stream = null;
  let gate = null;
  let load = null;
  let state = "idle";
  let stopping = false;
  let rounds = 0;
  let current = Promise.resolve();

  const become = (next) => {
    state = next;
    on.state(next);
  };

  const drop = async () => {
    const old = engine;
    engine = key = null;
    await old?.unload().catch(() => {});
  };

  const prepare = async (model, cache) => {
    if (engine && key === model.key) {
      await engine.reset(cache);
    } else {
      await drop();
      load = new AbortController();
      engine = await brooklet.Engine.load({
        ...model.source,
        ...cache,
        onProgress: on.progress,
        onWarning: on.warning,
        signal: load.signal,
      });
      key = model.key;
    }
    made = cache.policy;
  };

  const consume = async () => {
    let slice = performance.now();
    for (;;) {
      if (gate) {
        await gate.opened;
        if (stopping) return;
      }
      const { value, done } = await stream.next();
      if (done) return;
      on.piece(value, stream.stats);
      // Tokens that come faster than tasks must not keep the page from its other work.
      if (performance.now() - slice > SLICE_MS) {
        await macrotask();
        slice = performance.now();
      }
    }
  };

  const run = async (prompt, sampling, hidden) => {
    const tokens = prompt ? await engine.tokenize(prompt) : [];
    if (stopping) return;
    on.begin({ prompt, tokens, hidden, info: engine.info });
    stream = engine.stream(prompt, sampling);
    become("streaming");
    await consume();
    on.end(stream.stats);
  };

  // One thing after the other: a start waits until the stream before it has ended.
  const guard = (work, retry) => {
    current = current.then(() => attempt(work, retry));
    return current;
  };

  const attempt = async (work, retry) => {
    stopping = false;
    try {
      await work();
      become("stopped");
    } catch (error) {
      const code = error.name === "AbortError" ? "aborted" : (error.code ?? "internal");
      // What is lost with the device is the engine; after any other error of a stream it may still be sound.
      if (code === "device-lost" || code === "internal" || state === "loading") await drop();
      if (code === "aborted") become("stopped");
      else {
        console.warn(error);
        become("error");
        on.error(error, retry);
      }
    } finally {
      gate = stream = load = null;
    }
  };

  const start = (order) =>
    guard(async () => {
      rounds = 0;
      become("loading");
      await prepare(order.model, order.cache);
      if (stopping) return;
      on.loaded(engine.info, { keepText: Boolean(order.hidden) });
      await run(order.prompt, order.sampling, order.hidden);
    }, order);

  return {
    get state() {
      return state;
    },
    get info() {
      return engine?.info ?? null;
    },
    get canContinue() {
      return Boolean(engine);
    },
    /** The sinks can be taken away and put back only in a cache that has them. */
    get canSwitch() {
      return Boolean(engine) && made === "streaming";
    },
    start,
    resume: (sampling) =>
      guard(() => {
        rounds++;
        // The same seed again would draw the same numbers again.
        return run("", { ...sampling, seed: (sampling.seed + rounds) >>> 0 }, true);
      }, null),
    pause() {
      if (state === "streaming") {
        gate = latch();
        become("paused");
      } else if (state === "paused") {
        const { open } = gate;
        gate = null;
        become("streaming");
        open();
      }
    },
    async stop() {
      stopping = true;
      load?.abort();
      gate?.open();
      await stream?.stop().catch(() => {});
    },
    setPolicy: (policy) => engine.setPolicy(policy),
  };
};
