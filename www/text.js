// The text: a bounded stage to read, and everything so far, bounded too, to copy and save.

import { createFollow } from "./follow.js";
import { count, words } from "./format.js";
import { createSaying } from "./saying.js";

const SHOWN = 15_000; // characters on the stage, some 2500 to 3000 words
const KEPT = 8_000_000;
const CHUNK = 65_536;
const FADE_MS = 500;
const FLUSH_MS = 50;
const PENDING = 4096;

/** Joined chunks of text; beyond `KEPT` characters the oldest chunk is let go. */
const createArchive = () => {
  let chunks = [];
  let parts = [];
  let open = 0;
  let closed = 0;
  let lost = 0;
  return {
    get lost() {
      return lost;
    },
    add(text) {
      parts.push(text);
      open += text.length;
      if (open < CHUNK) return;
      chunks.push(parts.join(""));
      closed += open;
      parts = [];
      open = 0;
      while (closed > KEPT) {
        const oldest = chunks.shift();
        closed -= oldest.length;
        lost += words(oldest);
      }
    },
    all: () => [...chunks, ...parts],
    tail: (n) => (open >= n ? parts.join("") : [chunks.at(-1) ?? "", ...parts].join("")).slice(-n),
    clear() {
      chunks = [];
      parts = [];
      open = closed = lost = 0;
    },
  };
};

const BREAKS = [
  { from: 300, at: /\n+(?=[^\n])/g },
  { from: 1200, at: /[.!?]["”’)]*\s+(?=\S)/g },
  { from: 2000, at: /\s+(?=\S)/g },
  { from: 3000, at: /(?=[^])/g },
];

/**
 * Where in `text` a new block should begin, or -1: where the text itself breaks; in a long block at a
 * sentence's end; in one longer still anywhere. `before` is the end of the block so far.
 */
const breakIn = (text, before, length) => {
  const joined = before + text;
  for (const { from, at } of BREAKS) {
    for (const found of joined.matchAll(at)) {
      const end = found.index + found[0].length - before.length;
      if (end >= 0 && length + end > from) return end;
    }
  }
  return -1;
};

/** Without `live` nothing is said to a screen reader; `most` is how many characters stay on the stage. */
export const createText = ({ scroller, flow, folded, newest, live, still, most = SHOWN }) => {
  const archive = createArchive();
  const following = createFollow({ scroller, newest, still });
  const saying = live && createSaying(live);
  let blocks = [];
  let fading = [];
  let pending = "";
  let total = 0; // characters ever given
  let written = 0; // of them, those that reached the stage
  let shown = 0; // characters on the stage
  let foldedWords = 0;
  let flushed = 0;
  let mark = null;

  const newBlock = () => {
    const node = document.createElement("p");
    node.className = "block";
    const text = document.createTextNode("");
    node.append(text);
    flow.append(node);
    const block = { node, text, length: 0, start: written, end: "" };
    blocks.push(block);
    return block;
  };

  const grow = (block, string) => {
    block.length += string.length;
    block.end = (block.end + string).slice(-8);
    shown += string.length;
    written += string.length;
  };

  const settle = (now) => {
    let n = 0;
    while (n < fading.length && now - fading[n].at > FADE_MS) {
      const { block, node } = fading[n++];
      block.text.appendData(node.textContent);
      node.remove();
    }
    if (n) fading.splice(0, n);
  };

  const fold = () => {
    let height = 0;
    while (shown > most && blocks.length > 1) {
      const block = blocks.shift();
      height += block.node.offsetHeight;
      settle(Infinity);
      foldedWords += words(block.node.textContent);
      shown -= block.length;
      block.node.remove();
    }
    if (!height) return;
    const gone = archive.lost ? ` The oldest ${count(archive.lost)} had to be let go.` : "";
    folded.textContent = `… ${count(foldedWords - archive.lost)} earlier words, kept to be copied.${gone}`;
    folded.hidden = false;
    following.shift(height);
  };

  const append = (block, string, now) => {
    if (!string) return;
    if (still() || document.hidden) {
      settle(Infinity);
      block.text.appendData(string);
    } else {
      const node = document.createElement("span");
      node.className = "new";
      node.textContent = string;
      block.node.append(node);
      fading.push({ block, node, at: now });
    }
    grow(block, string);
  };

  const write = (now) => {
    let rest = pending;
    pending = "";
    while (rest) {
      const block = blocks.at(-1) ?? newBlock();
      const cut = breakIn(rest, block.end, block.length);
      append(block, cut < 0 ? rest : rest.slice(0, cut), now);
      if (cut >= 0) newBlock();
      rest = cut < 0 ? "" : rest.slice(cut);
    }
    if (shown > most * 1.1) fold();
  };

  const locate = (from) => {
    if (from < 0 || !blocks.length || from < blocks[0].start) return null;
    const block = blocks.findLast((b) => b.start <= from);
    let at = from - block.start;
    for (const child of block.node.childNodes) {
      const node = child.firstChild ?? child;
      if (at < node.data.length) return { node, at };
      at -= node.data.length;
    }
    return null;
  };

  return {
    get length() {
      return total;
    },
    get busy() {
      return Boolean(pending || fading.length || following.gliding);
    },
    /** Returns where this text begins in the whole. */
    push(text) {
      const from = total;
      pending += text;
      total += text.length;
      archive.add(text);
      saying?.push(text);
      if (pending.length > PENDING) write(performance.now());
      return from;
    },
    /** What the visitor wrote stands apart from what the model made of it. */
    prompt(text) {
      write(performance.now());
      settle(Infinity);
      const from = total;
      const block = newBlock();
      const node = document.createElement("span");
      node.className = "given";
      node.textContent = text;
      block.node.replaceChildren(node, block.text);
      grow(block, text);
      total += text.length;
      archive.add(text);
      return from;
    },
    frame(now) {
      this.flow(now);
      this.follow();
    },
    /** The first half of a frame; where there are several texts, all of them before the second half of any. */
    flow(now) {
      if (now - flushed >= FLUSH_MS) {
        flushed = now;
        write(now);
      }
      settle(now);
    },
    /** The second half: it asks how high the text is, for which the browser lays it out. */
    follow: following.step,
    finish() {
      write(performance.now());
      settle(Infinity);
      following.step();
    },
    highlight(from, length) {
      if (!globalThis.Highlight) return;
      const start = length > 0 ? locate(from) : null;
      const end = start && locate(from + length - 1);
      if (!end) {
        if (mark) CSS.highlights.delete("token");
        mark = null;
        return;
      }
      mark = new Range();
      mark.setStart(start.node, start.at);
      mark.setEnd(end.node, end.at + 1);
      CSS.highlights.set("token", new Highlight(mark));
    },
    all: archive.all,
    tail: archive.tail,
    clear() {
      archive.clear();
      flow.replaceChildren();
      blocks = [];
      fading = [];
      pending = "";
      saying?.clear();
      total = written = shown = foldedWords = 0;
      folded.hidden = true;
      following.clear();
      CSS.highlights?.delete("token");
    },
  };
};
