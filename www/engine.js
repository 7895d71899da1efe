// The one engine that all ways share. One thing after the other: what begins waits until what was before has ended.

/** `connect`: where the engine is a server's, what opens one to it; it has one model and one cache. */
export const createHolder = (brooklet, on, connect = null) => {
  /** A model, loaded for so many streams at once. */
  const keyOf = (model, streams = 1) => (connect ? "server" : `${streams} ${model.key}`);

  let engine = null;
  let key = null;
  let user = null;
  let current = Promise.resolve();

  const drop = async () => {
    const old = engine;
    engine = key = user = null;
    await old?.unload().catch(() => {});
  };

  return {
    get engine() {
      return engine;
    },
    get info() {
      return engine?.info ?? null;
    },
    /** Which way the cache was last used by: "stream", "chat", "beside" or null. */
    get user() {
      return user;
    },
    has: (model) => Boolean(engine) && key === keyOf(model),
    /** The engine with this model, loaded if it is another than before or for another number of streams; true where it had
     * to be. */
    async open(model, options, signal) {
      if (engine && key === keyOf(model, options.streams)) return false;
      await drop();
      const told = { onProgress: on.progress, onWarning: on.warning, signal };
      engine = connect ? await connect(told) : await brooklet.Engine.load({ ...model.source, ...options, ...told });
      key = keyOf(model, options.streams);
      on.loaded(engine.info);
      return true;
    },
    use(way) {
      user = way;
    },
    drop,
    /** Whether an error has left nothing to go on with: then the engine is dropped. */
    async fails(code, loading) {
      // What is lost with the device is the engine; after any other error of a stream it may still be sound.
      if (["device-lost", "internal"].includes(code) || (connect && code === "network") || loading) await drop();
    },
    queue(work) {
      current = current.then(work, work);
      return current;
    },
  };
};

export const codeOf = (error) => (error.name === "AbortError" ? "aborted" : (error.code ?? "internal"));

export const SLICE_MS = 12;

/** The next task: tokens that come faster than tasks must not keep the page from its other work. */
export const macrotask = () =>
  new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      done();
    };
    port2.postMessage(0);
  });
