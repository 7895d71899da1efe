// A conversation's life: load, read, speak, stop. It goes on in the engine's own conversation as long as that is there,
// and is told anew from its messages where it is not.

import { codeOf, macrotask, SLICE_MS } from "./engine.js";

const TOLD = { messages: 400, characters: 400_000 }; // at most, of what is told anew: more than any window holds

/** From where on the messages are told: a question, with as much after it as may be told. */
const beginning = (messages) => {
  let from = messages.length;
  let room = TOLD.characters;
  while (from > 0 && messages.length - from < TOLD.messages) {
    const { content, thoughts = "" } = messages[from - 1];
    room -= content.length + thoughts.length;
    if (room < 0) break;
    from--;
  }
  while (from < messages.length && messages[from].role !== "user") from++;
  return from;
};

export const createTalk = (holder, on) => {
  let conversation = null;
  let of = null; // the engine that it is a conversation of
  let base = 0; // messages that were before those that it knows
  let answer = null;
  let load = null;
  let state = "idle";
  let stopping = false;

  const become = (next) => {
    state = next;
    on.state(next);
  };

  const forget = () => {
    conversation = of = null;
    base = 0;
  };

  /** An answer that has not begun, of the conversation that is there or of one that is made now. */
  const ask = ({ kind, text, before, conversation: options, answer: sampling }) => {
    if (of !== holder.engine) forget();
    if (conversation && kind === "regenerate") return conversation.regenerate(sampling());
    if (conversation && kind === "edit") return conversation.edit(text, sampling());
    if (!conversation) {
      base = beginning(before);
      of = holder.engine;
      conversation = of.conversation({ ...options(), messages: before.slice(base) });
    }
    return conversation.send(text, sampling());
  };

  const consume = async () => {
    let slice = performance.now();
    for (;;) {
      const { value, done } = await answer.next();
      if (done) return;
      if (state !== "speaking") become("speaking");
      on.piece(value, answer.stats);
      if (performance.now() - slice > SLICE_MS) {
        await macrotask();
        slice = performance.now();
      }
    }
  };

  const turn = async (order) => {
    if (stopping) {
      await on.takenBack(order);
      return;
    }
    if (!holder.has(order.model)) become("loading");
    load = new AbortController();
    await holder.open(order.model, {}, load.signal);
    if (!holder.info.chat?.template)
      throw Object.assign(new Error(`${order.model.name} has no chat template.`), { code: "no-template" });
    if (stopping) {
      await on.takenBack(order);
      return;
    }
    become("reading");
    answer = ask(order);
    holder.use("chat");
    await consume();
    await on.end(answer.stats, { base, messages: conversation.messages });
  };

  const attempt = async (order) => {
    try {
      await turn(order);
    } catch (error) {
      const code = codeOf(error);
      forget();
      await holder.fails(code, state === "loading");
      if (code === "aborted") await on.takenBack(order);
      else {
        console.warn(error);
        await on.error(error, order);
      }
    } finally {
      answer = load = null;
      become("idle");
    }
  };

  return {
    get state() {
      return state;
    },
    get base() {
      return base;
    },
    begin(order) {
      stopping = false;
      become(holder.has(order.model) ? "reading" : "loading");
      return holder.queue(() => attempt(order));
    },
    /** What comes next is another conversation, or this one told anew. */
    forget,
    async stop() {
      stopping = true;
      load?.abort();
      await answer?.stop().catch(() => {});
    },
  };
};
