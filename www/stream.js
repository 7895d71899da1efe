// The way of the stream: its text, its ring and its buttons, drawn in one animation frame.

import { copy, onSent, saveFile } from "./actions.js";
import { createRing } from "./ring.js";
import { createSession } from "./session.js";
import { PROMPT } from "./settings.js";
import { createSlots } from "./slots.js";
import { createText } from "./text.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;

const FIGURES_MS = 250;
const STEP_MS = 500; // between drawings of the ring where motion is unwelcome
const LABELS_MS = 5000;
const TAIL = 600; // characters to go on from when the device was lost

export const createStream = ({ settings, alert, figures: { history, chart }, still, chosen }) => {
  const text = createText({
    scroller: $("text"),
    flow: $("flow"),
    folded: $("folded"),
    newest: $("newest"),
    live: $("live"),
    still,
  });

  let session = null;
  let slots = null;
  let stats = null;
  let seed = 0;
  let queued = false;
  let touched = false;
  let dirty = { ring: false, chart: false };
  let shownAt = { ring: 0, figures: 0, labels: 0 };

  const ring = createRing($("ring"), {
    onPick(place) {
      touched ||= place >= 0;
      view.showCaption(slots, place, touched);
      markToken(place);
      dirty.ring = true;
      shownAt.ring = 0;
      request();
    },
  });

  const markToken = (place) => {
    const found = place >= 0 ? slots?.at(place) : null;
    text.highlight(found ? found.offset : -1, found ? found.text.length : 0);
  };

  const showSinks = () => {
    const running = ["streaming", "paused"].includes(root.dataset.state);
    const left = slots ? slots.sinks + slots.window - slots.last - 1 : 0;
    view.showSinks({
      away: settings.policy === "window",
      running,
      switchable: Boolean(session?.canSwitch),
      left,
    });
    ring.sinksAway(settings.policy === "window");
  };

  const figures = () => {
    if (stats) view.showStats(stats, history.recent() ?? stats.decodeTps ?? 0);
    if (session?.info) view.showInfo(session.info);
    showSinks();
    view.showCaption(slots, ring.picked, touched);
  };

  const labels = () => {
    if (!slots) return;
    view.labelRing($("ring"), slots, stats?.evicted ?? 0);
    view.labelChart($("chart"), history);
  };

  const due = (name, now, gap) => {
    if (now - shownAt[name] < gap) return false;
    shownAt[name] = now;
    return true;
  };

  const frame = (now) => {
    queued = false;
    text.frame(now);
    if (dirty.ring && due("ring", now, still() ? STEP_MS : 0)) {
      dirty.ring = false;
      ring.draw();
    }
    if (dirty.chart) {
      dirty.chart = false;
      chart.draw(view.chartLabel(history));
    }
    if (due("figures", now, FIGURES_MS)) figures();
    if (due("labels", now, LABELS_MS)) labels();
    if (text.busy || dirty.ring || root.dataset.state === "streaming") request();
  };

  const request = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(frame);
  };

  const becomes = (state) => {
    const inDock = $("dock").contains(document.activeElement);
    history.rest();
    view.showState(state);
    root.toggleAttribute("data-resumable", Boolean(session?.canContinue) && slots !== null && slots.last >= 0);
    if (state === "stopped" || state === "error") text.finish();
    if (state === "loading") view.showProgress({ stage: "load", from: "network", loaded: 0, total: 0 });
    // The button that was pressed is gone; the focus must not fall out of the dock.
    if (inDock)
      (state === "streaming" || state === "paused"
        ? $("pause")
        : state === "loading"
          ? $("stop")
          : root.hasAttribute("data-resumable")
            ? $("continue")
            : $("start")
      ).focus({ preventScroll: true });
    shownAt.figures = shownAt.labels = 0;
    request();
  };

  const on = {
    state: becomes,
    prepared(info, { keepText }) {
      if (!keepText) text.clear();
      slots = createSlots(info.cache);
      stats = null;
      history.clear();
      ring.use(slots);
      dirty.ring = dirty.chart = true;
    },
    begin({ prompt, tokens, hidden }) {
      root.toggleAttribute("data-text", true);
      if (!prompt) return;
      const from = hidden ? -1 : text.prompt(prompt);
      // Tokens whose texts do not add up to the prompt cannot be found in it.
      const exact = from >= 0 && tokens.map((t) => t.text).join("") === prompt;
      let at = from;
      tokens.forEach((token, n) => {
        slots.put(n, token.text, exact ? at : -1);
        at += token.text.length;
      });
      dirty.ring = true;
      request();
    },
    piece(piece, now) {
      stats = now;
      slots.put(piece.index, piece.text, text.push(piece.text));
      if (ring.picked === slots.placeOf(piece.index)) markToken(ring.picked);
      // One token may still come in after a pause; its time does not count.
      if (session.state === "streaming") {
        history.add(1);
        if (history.tick(performance.now())) dirty.chart = true;
      }
      dirty.ring = true;
      request();
    },
    end(last) {
      stats = last;
    },
    error: (error, order) => alert.show(error, order && (() => retry(error, order))),
  };

  const sampling = () => ({ ...settings.sampling(), seed });

  const order = () => {
    seed = settings.drawSeed();
    return { model: chosen(), cache: settings.cache(), prompt: $("prompt").value, sampling };
  };

  /** Goes on from the last lines, in a cache that has lost all that was before. */
  const anew = (old) => ({ ...old, prompt: text.tail(TAIL), hidden: true });

  const retry = (error, old) => {
    const again = { ...old, model: chosen(), cache: settings.cache() };
    session.start(error.code === "device-lost" && text.length ? anew(again) : again);
  };

  const start = () => {
    if (!session || !["idle", "stopped", "error"].includes(session.state)) return;
    alert.hide();
    session.start(order());
  };

  const resume = () => {
    alert.hide();
    if (session.holds) session.resume({ ...settings.sampling(), seed: settings.sampling().seed ?? seed });
    else session.start(anew(order()));
  };

  const switchPolicy = async (policy) => {
    settings.policy = policy;
    try {
      if (session?.canSwitch && ["streaming", "paused", "stopped"].includes(session.state)) {
        await session.setPolicy(policy);
      }
    } catch (error) {
      alert.show(error);
    }
    dirty.ring = true;
    shownAt.figures = 0;
    request();
  };

  const listen = () => {
    onSent($("dock"), $("prompt"), start);
    $("pause").addEventListener("click", () => session?.pause());
    $("stop").addEventListener("click", () => session?.stop());
    $("continue").addEventListener("click", resume);
    $("copy").addEventListener("click", () => copy($("copy"), text.all().join("")));
    $("save").addEventListener("click", () => saveFile("brooklet.txt", text.all(), "text/plain"));
    $("link").addEventListener("click", () => {
      if (settings.sampling().seed === null) settings.drawSeed(true);
      const link = settings.link(chosen().url);
      globalThis.history.replaceState(null, "", new URL(link).hash);
      copy($("link"), link);
    });
    $("policy").addEventListener("change", () => switchPolicy(settings.policy));
    $("sinks-button").addEventListener("click", () =>
      switchPolicy(settings.policy === "window" ? "streaming" : "window"),
    );
    $("settings-reset").addEventListener("click", () => {
      settings.defaults();
      $("prompt").value ||= PROMPT;
      switchPolicy(settings.policy);
    });
    document.addEventListener("visibilitychange", () => !document.hidden && request());
  };

  listen();
  slots = createSlots({ ...settings.cache(), ring: settings.cache().window + 63 });
  ring.use(slots);

  return {
    ring,
    /** Shows what a link has filled in. */
    refresh() {
      showSinks();
      view.showCaption(slots, -1, touched);
    },
    switchPolicy,
    progress: (progress) => view.showProgress(progress),
    connect(holder) {
      session = createSession(holder, on);
      $("sinks-button").disabled = false;
    },
    focus: () => $("start").focus(),
    /** The other way is shown: what speaks here ends, and can go on later. */
    leave() {
      if (session && ["loading", "streaming", "paused"].includes(session.state)) session.stop();
    },
    enter() {
      view.showState(root.dataset.state);
      dirty.ring = dirty.chart = true;
      shownAt.figures = 0;
      request();
    },
  };
};
