// The way of several stories from one prompt: their cards, what they come to together, and its buttons.

import { copy, onSent } from "./actions.js";
import { bytes, count, rate, time } from "./format.js";
import { STORIES } from "./settings.js";
import { createStories } from "./stories.js";
import { createStory } from "./story.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;

const USUAL = 4; // stories
const FIGURES_MS = 250;
const RINGS_MS = 80; // between drawings of the rings, which are small and many
const STEP_MS = 500; // the same where motion is unwelcome
const LABELS_MS = 5000;
const FAST = 100; // tokens a second, from which on nobody sees one fade in

const ENDS = { stop: "ended at a stop text", "end of text": "ended", "cache full": "its cache is full" };

export const createBeside = ({ settings, alert, figures: { history, chart }, still, chosen }) => {
  const cards = Array.from({ length: Math.max(...STORIES) }, (_, n) =>
    createStory(n + 1, { still, onKeep: () => keep(n) }),
  );
  $("cards").append(...cards.map(({ node }) => node));
  $("stories").append(...STORIES.map((n) => new Option(n, n, n === USUAL, n === USUAL)));

  let stories = null;
  let told = []; // the cards of this run
  let askedAt = 0; // when the prompt was, until the first token
  let queued = false;
  let dirtyChart = false;
  let shownAt = { rings: 0, figures: 0, labels: 0 };

  const say = (words) => ($("beside-live").textContent = words);
  const running = () => ["streaming", "paused"].includes(stories?.state);
  const busy = () => running() || stories?.state === "loading";
  const sum = (of) => told.reduce((all, { stats }) => all + (stats ? of(stats) : 0), 0);
  const made = () => sum(({ generatedTokens }) => generatedTokens);
  const forgotten = () => sum(({ evicted }) => evicted);

  const figures = () => {
    const tps = history.recent() ?? sum(({ decodeTps }) => decodeTps);
    $("cards").toggleAttribute("data-fast", tps > FAST);
    view.put("beside-tokens", count(made()));
    view.put("beside-tps", tps > 0 ? rate(tps) : "–");
    view.put("beside-forgotten", count(forgotten()));
    for (const card of told) card.figures();
  };

  const labels = () => {
    for (const card of told) card.label();
    view.labelChart($("chart"), history);
  };

  const due = (name, now, gap) => {
    if (now - shownAt[name] < gap) return false;
    shownAt[name] = now;
    return true;
  };

  const frame = (now) => {
    queued = false;
    const drawRings = due("rings", now, still() ? STEP_MS : RINGS_MS);
    for (const card of told) card.flow(now, drawRings);
    for (const card of told) card.follow();
    if (dirtyChart) {
      dirtyChart = false;
      chart.draw(view.chartLabel(history));
    }
    if (due("figures", now, FIGURES_MS)) figures();
    if (due("labels", now, LABELS_MS)) labels();
    if (stories?.state === "streaming" || told.some((card) => card.busy)) request();
  };

  const request = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(frame);
  };

  const showState = (state) => {
    root.dataset.beside = state;
    if (root.dataset.way === "beside") view.put("status", view.STATES[state]);
    $("beside-pause").textContent = state === "paused" ? "Continue" : "Pause";
    $("beside-stop").textContent = state === "loading" ? "Cancel" : "Stop";
  };

  const FOCUS = { loading: "beside-stop", streaming: "beside-pause", paused: "beside-pause" };

  const becomes = (state) => {
    const inDock = $("beside-dock").contains(document.activeElement);
    history.rest();
    for (const card of told) card.rest();
    showState(state);
    if (state === "loading") view.showProgress({ stage: "load", from: "network", loaded: 0, total: 0 }, "beside-");
    if (state === "stopped" || state === "error") {
      for (const card of told) card.finish();
      if (made()) say(`The stories have ended: ${count(made())} tokens in all, ${count(forgotten())} forgotten.`);
    }
    if (state === "paused") say("Paused.");
    // The button that was pressed is gone; the focus must not fall out of the dock.
    if (inDock) $(FOCUS[state] ?? "beside-start").focus({ preventScroll: true });
    shownAt.figures = shownAt.labels = 0;
    request();
  };

  const arrange = (number) => {
    $("cards").dataset.stories = number;
  };

  const on = {
    state: becomes,
    prepared(info, { seeds }) {
      for (const card of cards) card.hide();
      root.toggleAttribute("data-told", true);
      arrange(seeds.length);
      told = cards.slice(0, seeds.length);
      told.forEach((card, n) => card.begin(info.cache, seeds[n]));
      view.put("beside-gpu-bytes", bytes(info.bytes.gpu));
      history.clear();
      dirtyChart = true;
      askedAt = performance.now();
      request();
    },
    begin({ prompt, tokens }) {
      for (const card of told) card.prompt(prompt, tokens);
      say(`${told.length} stories have begun.`);
    },
    piece(n, piece, stats) {
      if (askedAt) view.put("ttft", time(performance.now() - askedAt));
      askedAt = 0;
      told[n].piece(piece, stats);
      // One token of each may still come in after a pause; its time does not count.
      if (stories.state === "streaming") {
        history.add(1);
        if (history.tick(performance.now())) dirtyChart = true;
      }
      request();
    },
    end(n, stats) {
      told[n].end(stats, ENDS[stats.stopReason] ?? "stopped");
      request();
    },
    error: (error, order) => alert.show(error, () => stories.start({ ...order, model: chosen() }), "beside"),
  };

  const number = () => Number($("stories").value);

  const start = () => {
    if (!stories || busy()) return;
    alert.hide();
    const first = settings.drawSeed();
    stories.start({
      model: chosen(),
      cache: settings.cache(),
      prompt: $("beside-prompt").value,
      seeds: Array.from({ length: number() }, (_, n) => (first + n) >>> 0),
      sampling: settings.sampling,
    });
  };

  const keep = (n) => {
    if (!running()) return;
    const { node } = told[n];
    for (const card of told) if (card.node !== node) card.hide();
    arrange(1);
    say(`Story ${n + 1} goes on alone.`);
    stories.keep(n);
    node.querySelector(".scroller").focus({ preventScroll: true }); // the button is gone
  };

  const listen = () => {
    onSent($("beside-dock"), $("beside-prompt"), start);
    $("beside-pause").addEventListener("click", () => stories?.pause());
    $("beside-stop").addEventListener("click", () => stories?.stop());
    $("beside-link").addEventListener("click", () => {
      if (settings.sampling().seed === null) settings.drawSeed(true);
      const link = settings.link(chosen().url, { prompt: $("beside-prompt").value, stories: number() });
      globalThis.history.replaceState(null, "", new URL(link).hash);
      copy($("beside-link"), link);
    });
    document.addEventListener("visibilitychange", () => !document.hidden && request());
  };

  listen();
  root.dataset.beside = "idle";

  return {
    /** The rings, as what watches sizes and colours knows a picture. */
    rings: {
      resize: () => cards.forEach(({ ring }) => ring.resize()),
      restyle: () => cards.forEach(({ ring }) => ring.restyle()),
      draw: () => told.forEach(({ ring }) => ring.draw()),
    },
    /** What a link has brought. */
    propose({ prompt, stories: many }) {
      if (prompt !== undefined) $("beside-prompt").value = prompt;
      if (many !== undefined) $("stories").value = many;
    },
    progress: (progress) => view.showProgress(progress, "beside-"),
    /** A server has so many streams. */
    most(streams) {
      const { options } = $("stories");
      for (const option of options) option.disabled = Number(option.value) > streams;
      if (number() <= streams) return;
      const last = [...options].findLast(({ disabled }) => !disabled);
      if (last) $("stories").value = last.value;
    },
    connect(holder) {
      stories = createStories(holder, on);
    },
    focus: () => $("beside-start").focus(),
    /** Another way is shown: what is written here ends. */
    leave() {
      if (busy()) stories.stop();
    },
    enter() {
      showState(root.dataset.beside);
      dirtyChart = true;
      shownAt.figures = 0;
      request();
    },
  };
};
