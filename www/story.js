// One story among several: a card with its small ring, its figures and its newest lines.

import { copy } from "./actions.js";
import { createHistory } from "./chart.js";
import { count, rate } from "./format.js";
import { createRing } from "./ring.js";
import { createSlots } from "./slots.js";
import { createText } from "./text.js";

const SHOWN = 4000; // characters that can be scrolled back to; all of them can be copied

export const createStory = (number, { still, onKeep }) => {
  const node = document.getElementById("story").content.firstElementChild.cloneNode(true);
  const part = (name) => node.querySelector(`.${name}`);
  const put = (name, words) => {
    if (part(name).textContent !== words) part(name).textContent = words;
  };

  const title = node.querySelector("h2");
  title.id = `story-${number}`;
  title.textContent = `Story ${number}`;
  node.setAttribute("aria-labelledby", title.id);
  for (const name of ["story-copy", "story-keep"]) part(name).setAttribute("aria-describedby", title.id);
  part("scroller").setAttribute("aria-label", `Text of story ${number}`);
  node.hidden = true;

  const canvas = node.querySelector("canvas");
  const ring = createRing(canvas, { onPick() {} });
  const text = createText({
    scroller: part("scroller"),
    flow: part("flow"),
    folded: part("folded"),
    newest: part("newest"),
    live: null,
    still,
    most: SHOWN,
  });
  const history = createHistory();
  let slots = null;
  let stats = null;
  let seed = 0;
  let stale = false; // the ring has something new to draw

  part("story-copy").addEventListener("click", () => copy(part("story-copy"), text.all().join("")));
  part("story-keep").addEventListener("click", onKeep);

  const label = () => {
    const tokens = slots ? slots.last + 1 : 0;
    canvas.setAttribute(
      "aria-label",
      `The ring of story ${number}: ${count(tokens)} tokens, ${count(stats?.evicted ?? 0)} of them forgotten`,
    );
  };
  label();

  return {
    node,
    ring,
    get stats() {
      return stats;
    },
    get seed() {
      return seed;
    },
    get busy() {
      return text.busy || stale;
    },
    begin(cache, drawn) {
      seed = drawn;
      stats = null;
      history.clear();
      text.clear();
      slots = createSlots(cache);
      node.hidden = false;
      node.removeAttribute("data-ended");
      put("story-seed", `seed ${seed}`);
      ring.use(slots);
      ring.sinksAway(cache.policy === "window");
      stale = true;
    },
    prompt(prompt, tokens) {
      if (prompt) text.prompt(prompt);
      tokens.forEach(({ text: word }, n) => slots.put(n, word, -1));
      stale = true;
    },
    piece(piece, now) {
      stats = now;
      slots.put(piece.index, piece.text, text.push(piece.text));
      history.add(1);
      history.tick(performance.now());
      stale = true;
    },
    end(last, reason) {
      stats = last;
      node.toggleAttribute("data-ended", true);
      put("story-seed", `seed ${seed} · ${reason}`);
    },
    /** Time that must not count, and nothing more for now. */
    rest: () => history.rest(),
    finish: () => text.finish(),
    hide() {
      node.hidden = true;
      text.clear();
    },
    flow(now, drawRing) {
      text.flow(now);
      if (stale && drawRing) {
        stale = false;
        ring.draw();
      }
    },
    follow: text.follow,
    figures() {
      const tps = history.recent() ?? stats?.decodeTps ?? 0;
      put("story-tokens", count(slots ? slots.last + 1 : 0));
      put("story-tps", tps > 0 ? rate(tps) : "–");
      put("story-forgotten", count(stats?.evicted ?? 0));
    },
    label,
  };
};
