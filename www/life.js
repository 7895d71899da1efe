// Where what streams is in its life, and its pauses. Pausing is not asking for the next token.

const latch = () => {
  let open;
  const opened = new Promise((done) => {
    open = done;
  });
  return { opened, open };
};

/** `told` hears of each state. */
export const createLife = (told) => {
  let state = "idle";
  let gate = null; // there while it is paused

  const become = (next) => {
    const before = gate;
    gate = next === "paused" ? latch() : null;
    state = next;
    told(next);
    before?.open();
  };

  return {
    get state() {
      return state;
    },
    /** What to wait for before the next token is asked for; null where nothing is paused. */
    get gate() {
      return gate && gate.opened;
    },
    become,
    /** Pauses what streams, and goes on with what is paused. */
    pause() {
      if (state === "streaming") become("paused");
      else if (state === "paused") become("streaming");
    },
    /** Nothing waits any more; what was paused still is. */
    release: () => gate?.open(),
  };
};
