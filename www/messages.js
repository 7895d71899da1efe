// The messages of a conversation, of which the newest alone are on the page.

import { copy } from "./actions.js";
import { createFollow } from "./follow.js";
import { count, rate, time } from "./format.js";
import { createMarkdown } from "./markdown.js";

const SHOWN = 40; // messages on the page; what is older is shown when it is asked for
const CHARACTERS = 160_000; // on the page, beside the last two messages
const FLUSH_MS = 50;
const PENDING = 4096;

const make = (tag, className, text = "") => {
  const node = document.createElement(tag);
  node.className = className;
  if (text) node.textContent = text;
  return node;
};

const button = (text, act) => {
  const node = make("button", "quiet", text);
  node.type = "button";
  node.addEventListener("click", () => act(node));
  return node;
};

const FATES = {
  whole: () => "",
  partly: ({ tokens, visible }) =>
    `In part forgotten: the model sees the last ${count(visible)} of ${count(tokens)} tokens.`,
  gone: () => "Forgotten: the model sees nothing of this message any more.",
};

/** What an answer took, in words. */
const figuresOf = ({ generatedTokens, decodeTps, ttftMs, stopReason, retold, leftOut }) =>
  [
    `${count(generatedTokens)} ${generatedTokens === 1 ? "token" : "tokens"}`,
    decodeTps > 0 && generatedTokens > 1 ? `${rate(decodeTps)} a second` : "",
    ttftMs > 0 ? `the first after ${time(ttftMs)}` : "",
    { length: "the longest allowed", stopped: "stopped", stop: "ended at a stop text" }[stopReason] ?? "",
    retold ? "the conversation was told anew" : "",
    leftOut > 0 ? `${count(leftOut)} messages did not fit` : "",
  ]
    .filter(Boolean)
    .join(" · ");

export const createMessages = ({ scroller, list, earlier, newest, still, actions }) => {
  const following = createFollow({ scroller, newest, still });
  const divider = make("p", "divider", "forgotten above here");
  let all = []; // the messages themselves
  let shown = []; // { n, node, length, … } of those on the page
  let pending = { text: "", thought: "" };
  let flushed = 0;
  let live = null; // the one that is being written
  let began = 0; // of its thoughts

  const tools = [
    button("Regenerate", () => actions.regenerate()),
    button("Edit", () => actions.edit()),
    button("Delete", () => actions.remove()),
  ];
  for (const [n, label] of [
    "Regenerate this answer",
    "Edit your last message",
    "Delete this question and its answer",
  ].entries())
    tools[n].setAttribute("aria-label", label);

  const thoughtsOf = (shape) => {
    if (!shape.thoughts) {
      const box = make("details", "thoughts");
      const summary = make("summary", "", "Thinking …");
      const body = make("div", "thought");
      box.append(summary, body);
      shape.said.before(box);
      shape.thoughts = { summary, body };
    }
    return shape.thoughts;
  };

  const think = (shape, text) => {
    const { body } = thoughtsOf(shape);
    if (body.lastChild && body.lastChild.length < PENDING) body.lastChild.appendData(text);
    else body.append(text);
  };

  const build = (message, n) => {
    const mine = message.role === "user";
    const node = make("article", `message ${message.role}`);
    const fate = make("p", "fate");
    const said = make("div", "said");
    const acts = make("div", "acts");
    const figures = make("span", "note");
    fate.hidden = true;
    node.dataset.testid = message.role;
    node.tabIndex = -1;
    const copyButton = button("Copy", (self) => copy(self, all[n].content));
    copyButton.setAttribute("aria-label", mine ? "Copy your message" : "Copy this answer");
    acts.append(copyButton, figures);
    node.append(make("h2", "hidden", mine ? "You" : "The model"), fate, said, acts);
    const shape = { n, node, fate, said, acts, figures, seen: "whole", length: message.content.length };
    if (mine) said.textContent = message.content;
    else shape.markdown = createMarkdown(said);
    return shape;
  };

  const fill = (shape, { role, content, thoughts }) => {
    if (role === "user") return;
    if (thoughts) {
      think(shape, thoughts);
      shape.thoughts.summary.textContent = "Thoughts";
    }
    shape.markdown.write(content);
    shape.markdown.end();
  };

  const showEarlier = () => {
    const hidden = shown[0]?.n ?? 0;
    earlier.hidden = hidden === 0;
    earlier.textContent = `… ${count(hidden)} earlier ${hidden === 1 ? "message" : "messages"}`;
  };

  const showTools = () => {
    const last = shown.at(-1);
    if (last && !live) last.acts.append(...tools, last.figures);
    else for (const tool of tools) tool.remove();
    tools[0].hidden = last !== undefined && all[last.n].role === "user";
    tools[2].hidden = false;
  };

  const prepend = (from) => {
    const first = shown[0]?.n ?? all.length;
    const shapes = all.slice(from, first).map((message, i) => {
      const shape = build(message, from + i);
      fill(shape, message);
      return shape;
    });
    list.prepend(...shapes.map(({ node }) => node));
    shown = [...shapes, ...shown];
    showEarlier();
  };

  /** Takes the oldest off the page. */
  const fold = () => {
    let height = 0;
    let characters = shown.reduce((sum, { length }) => sum + length, 0);
    while (shown.length > 2 && (shown.length > SHOWN || characters > CHARACTERS)) {
      const { node, length } = shown.shift();
      const top = node.getBoundingClientRect().top;
      height += (shown[0].node.getBoundingClientRect().top || top) - top;
      characters -= length;
      node.remove();
    }
    if (height > 0) following.shift(height);
    showEarlier();
  };

  const write = () => {
    const { text, thought } = pending;
    if (!live || !(text || thought)) return;
    pending = { text: "", thought: "" };
    if (thought) think(live, thought);
    if (text) {
      if (live.thoughts && began) {
        live.thoughts.summary.textContent = `Thought for ${time(performance.now() - began)}`;
        began = 0;
      }
      live.markdown.write(text);
      live.length += text.length;
    }
    live.node.classList.remove("waiting");
  };

  earlier.addEventListener("click", () => {
    const before = scroller.scrollHeight;
    prepend(Math.max(0, (shown[0]?.n ?? 0) - SHOWN));
    following.shift(before - scroller.scrollHeight);
    shown[0]?.node.focus({ preventScroll: true });
  });

  return {
    following,
    get count() {
      return all.length;
    },
    get busy() {
      return Boolean(pending.text || pending.thought || following.gliding);
    },
    /** Shows the end of a conversation; the messages stay the caller's. */
    show(messages) {
      all = messages;
      live = null;
      pending = { text: "", thought: "" };
      shown = [];
      list.replaceChildren();
      divider.remove();
      prepend(Math.max(0, all.length - SHOWN));
      fold();
      showTools();
      if (all.length) following.stick();
      else following.rest();
    },
    /** One more of `messages`, at the end; `speaking` where it is still to be written. */
    add(message, speaking = false) {
      const shape = build(message, all.length - 1);
      shown.push(shape);
      list.append(shape.node);
      if (speaking) {
        live = shape;
        began = 0;
        shape.node.classList.add("waiting");
      } else fill(shape, message);
      fold();
      showTools();
      following.stick();
    },
    piece(text, thought) {
      pending[thought ? "thought" : "text"] += text;
      if (thought) began ||= performance.now();
      // A page that nobody looks at draws no frames.
      if (pending.text.length + pending.thought.length > PENDING) write();
    },
    frame(now) {
      if (now - flushed >= FLUSH_MS) {
        flushed = now;
        write();
      }
      following.step();
    },
    /** The answer has ended. */
    finish(stats) {
      write();
      live?.markdown.end();
      live?.node.classList.remove("waiting");
      if (live?.thoughts && began) live.thoughts.summary.textContent = "Thoughts";
      if (live && stats) live.figures.textContent = figuresOf(stats);
      live = null;
      showTools();
      following.step();
    },
    /** What has become of each message: dimmed here, told there. `base` messages were before those of the window. */
    mark(window, base) {
      const known = new Map(window?.messages.map((m) => [m.message + base, m]));
      const oldest = window?.messages.length ? window.messages[0].message + base : 0;
      const seenOf = (n) => known.get(n)?.seen ?? (n < oldest ? "gone" : "whole");
      for (const shape of shown) {
        const seen = seenOf(shape.n);
        if (seen === shape.seen && seen !== "partly") continue;
        shape.seen = shape.node.dataset.seen = seen;
        const words = FATES[seen](known.get(shape.n));
        if (shape.fate.textContent !== words) shape.fate.textContent = words;
        shape.fate.hidden = seen === "whole";
      }
      const first = shown.find(({ seen }) => seen !== "gone");
      if (!first || first.n === 0 || seenOf(first.n - 1) !== "gone") divider.remove();
      else if (divider.nextSibling !== first.node) first.node.before(divider);
    },
    /** Brings a message into view, from further up where need be. */
    open(n) {
      if (n < (shown[0]?.n ?? 0)) prepend(n);
      const node = shown.find((shape) => shape.n === n)?.node;
      node?.scrollIntoView({ block: "nearest", behavior: still() ? "auto" : "smooth" });
      node?.focus({ preventScroll: true });
    },
  };
};
