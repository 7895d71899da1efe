// Wiring: the engine's session, the text, the ring and the chart, drawn in one animation frame.

import { createAlert } from "./alerts.js";
import { createChart, createHistory } from "./chart.js";
import { partOf } from "./format.js";
import { watchLook } from "./look.js";
import { createModels, listenForDrops } from "./models.js";
import { createRing } from "./ring.js";
import { createSession } from "./session.js";
import { createSettings, parseLink, PROMPT } from "./settings.js";
import { createSlots } from "./slots.js";
import { createText } from "./text.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const still = () => calm.matches;

const FIGURES_MS = 250;
const STEP_MS = 500; // between drawings of the ring where motion is unwelcome
const LABELS_MS = 5000;
const UPDATE_MS = 3000; // for a newer version to take over; it can at the next visit too
const TAIL = 600; // characters to go on from when the device was lost

const alert = createAlert($("error"));
const settings = createSettings($("settings-form"), $("prompt"));
const history = createHistory();
const chart = createChart($("chart"), history);
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

const recentRate = () => {
  const last = history.samples.slice(-4);
  return last.length > 1 ? last.reduce((a, b) => a + b, 0) / last.length : (stats?.decodeTps ?? 0);
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
  if (stats) view.showStats(stats, recentRate());
  if (session?.info) view.showInfo(session.info);
  showSinks();
  view.showCaption(slots, ring.picked, touched);
};

const labels = () => {
  if (!slots) return;
  view.labelRing($("ring"), slots, stats?.evicted ?? 0);
  view.labelChart($("chart"), history);
};

const drawAll = () => {
  ring.draw();
  chart.draw(view.chartLabel(history));
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
  if (state === "loading") view.showProgress({ stage: "load", from: "network", loaded: 0, total: 0 }, () => "");
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
  progress: (progress) => view.showProgress(progress, partOf),
  warning: (message) => {
    $("promise").textContent = message;
  },
  loaded(info, { keepText }) {
    if (!keepText) text.clear();
    slots = createSlots(info.cache);
    stats = null;
    history.clear();
    ring.use(slots);
    dirty.ring = dirty.chart = true;
    models.refresh();
  },
  begin({ prompt, tokens, hidden, info }) {
    root.toggleAttribute("data-text", true);
    $("status-model").textContent = `${info.model.name} (${info.model.architecture})`;
    $("status-model").title = info.model.kinds;
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

const order = () => {
  seed = settings.drawSeed();
  return {
    model: { key: models.key, source: models.source() },
    cache: settings.cache(),
    prompt: $("prompt").value,
    sampling: { ...settings.sampling(), seed },
  };
};

const retry = (error, old) => {
  const model = { key: models.key, source: models.source() };
  const again = { ...old, model, cache: settings.cache() };
  if (error.code !== "device-lost" || !text.length) session.start(again);
  else session.start({ ...again, prompt: text.tail(TAIL), hidden: true });
};

const start = () => {
  if (!session || !["idle", "stopped", "error"].includes(session.state)) return;
  alert.hide();
  session.start(order());
};

const resume = () => {
  alert.hide();
  session.resume({
    ...settings.sampling(),
    seed: settings.sampling().seed ?? seed,
  });
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

const said = (button, words) => {
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = words;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = before;
  }, 1600);
};

const copy = (button, string) =>
  navigator.clipboard.writeText(string).then(
    () => said(button, "Copied"),
    () => said(button, "Not allowed"),
  );

const save = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(text.all(), { type: "text/plain" }));
  link.download = "brooklet.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

let models = null;

const openModels = (brooklet) =>
  createModels({
    brooklet,
    modelOf: settings.modelOf,
    onProblem: (message) => alert.say("One thing", message),
    onChange({ name, note }) {
      $("promise").textContent = `${name} · ${note} · nothing is sent anywhere`;
    },
  });

const chooseLinked = ({ model }) => model && models?.chooseUrl(model);

const openLink = () => {
  const link = parseLink(location.hash);
  settings.fill(link);
  chooseLinked(link);
  showSinks();
  return link;
};

const listen = () => {
  $("dock").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    start();
  });
  $("pause").addEventListener("click", () => session?.pause());
  $("stop").addEventListener("click", () => session?.stop());
  $("continue").addEventListener("click", resume);
  $("copy").addEventListener("click", () => copy($("copy"), text.all().join("")));
  $("save").addEventListener("click", save);
  $("link").addEventListener("click", () => {
    if (settings.sampling().seed === null) settings.drawSeed(true);
    const link = settings.link(models?.url ?? "");
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
  addEventListener("hashchange", () => {
    openLink();
    switchPolicy(settings.policy);
  });
  document.addEventListener("visibilitychange", () => !document.hidden && request());
};

const refuse = (code, message) => {
  root.toggleAttribute("data-refused", true);
  view.showState("error");
  view.showRefused();
  alert.show({ code, message });
};

const open = async () => {
  listen();
  slots = createSlots({
    ...settings.cache(),
    ring: settings.cache().window + 63,
  });
  ring.use(slots);
  watchLook({ ring, chart, dock: $("dock"), drawAll });
  const link = openLink();
  view.showCaption(slots, -1, touched);
  let brooklet;
  try {
    brooklet = await import("./brooklet/index.js");
  } catch (error) {
    console.warn(error);
    refuse("internal", "The engine's files did not arrive. Load the page again.");
    return;
  }
  models = openModels(brooklet);
  listenForDrops($("drop"), (files) => {
    models.chooseFiles(files);
    $("start").focus();
  });
  await models.refresh();
  chooseLinked(link);
  if (!isSecureContext) return refuse("insecure", "");
  if (!navigator.gpu) return refuse("no-webgpu", (await import("./brooklet/advice.js")).noWebGpu());
  session = createSession(brooklet, on);
  $("sinks-button").disabled = false;
  root.toggleAttribute("data-ready", true);
};

/** Whether a newer version of the page takes over before this one has begun. */
const updates = async () => {
  const { serviceWorker } = navigator;
  const waiting = (await serviceWorker?.getRegistration())?.waiting;
  if (!waiting || !serviceWorker.controller) return false;
  const taken = new Promise((done) => serviceWorker.addEventListener("controllerchange", () => done(true)));
  const refused = new Promise((done) => serviceWorker.addEventListener("message", () => done(false)));
  const silent = new Promise((done) => setTimeout(done, UPDATE_MS, false));
  waiting.postMessage("take over");
  return Promise.race([taken, refused, silent]);
};

if (!isSecureContext || !navigator.serviceWorker) console.info("no service worker here: the page needs the network");
else navigator.serviceWorker.register("sw.js").catch((error) => console.info("no service worker:", error.message));

if (await updates()) location.reload();
else open();
