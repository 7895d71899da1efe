// Wiring: which way is shown, which model, what a link says, and the one engine that all ways share.

import { createAlert } from "./alerts.js";
import { createBeside } from "./beside.js";
import { createChart, createHistory } from "./chart.js";
import { createChat } from "./chat.js";
import { createHolder } from "./engine.js";
import { watchLook } from "./look.js";
import { createModels, listenForDrops } from "./models.js";
import { createServerModel, served, takeKey } from "./server.js";
import { createSettings, parseLink } from "./settings.js";
import { createStream } from "./stream.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const still = () => calm.matches;

const UPDATE_MS = 3000; // for a newer version to take over; it can at the next visit too

const alert = createAlert($("error"));
const settings = createSettings($("settings-form"), $("prompt"));
const history = createHistory();
const figures = { history, chart: createChart($("chart"), history) };
let models = null;

const chosen = () => ({ key: models.key, source: models.source(), url: models.url, name: models.name });

const parts = { settings, alert, figures, still, chosen };
const stream = createStream(parts);
const chat = createChat({ ...parts, toStream: () => (location.hash = "stream") });
const beside = createBeside(parts);
const ways = { stream, chat, beside };
const DOCKS = { stream: "dock", chat: "chat-dock", beside: "beside-dock" };
const TEXTS = { stream: "text", chat: "talk", beside: "cards" };
const PROMISES = ["promise", "chat-promise", "beside-promise"];

const show = (way) => {
  if (root.dataset.way === way) return;
  ways[root.dataset.way]?.leave();
  root.dataset.way = way;
  for (const name of Object.keys(ways)) {
    if (name === way) $(`way-${name}`).setAttribute("aria-current", "page");
    else $(`way-${name}`).removeAttribute("aria-current");
  }
  // The card of errors and what a screen reader hears belong to what is shown.
  alert.hide();
  $(DOCKS[way]).before($("error"));
  $("skip").href = `#${TEXTS[way]}`;
  ways[way].enter();
};

const chooseLinked = ({ model }) => model && models?.chooseUrl(model);

const openLink = () => {
  const link = parseLink(location.hash);
  settings.fill(link);
  chooseLinked(link);
  show(link.way ?? root.dataset.way ?? "chat");
  if (link.system !== undefined) chat.propose(link.system);
  if (link.way === "beside") beside.propose(link);
  stream.refresh();
  return link;
};

const promise = ({ name, note, where }) => {
  const last = where ?? "nothing is sent anywhere";
  for (const id of PROMISES) $(id).textContent = `${name} · ${note} · ${last}`;
};

const openModels = (brooklet) =>
  createModels({
    brooklet,
    modelOf: settings.modelOf,
    onProblem: (message) => alert.say("One thing", message),
    onChange: promise,
  });

const listen = () => {
  $("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says what the page shows
    $($("skip").hash.slice(1)).focus();
  });
  addEventListener("hashchange", () => {
    openLink();
    stream.switchPolicy(settings.policy);
  });
};

const on = {
  progress(progress) {
    if (served) models.waits(progress);
    ways[root.dataset.way].progress(progress);
  },
  warning(message) {
    for (const id of PROMISES) $(id).textContent = message;
  },
  loaded(info) {
    settings.suggest(info.sampling);
    view.showInfo(info);
    $("status-model").textContent = `${info.model.name} (${info.model.architecture})`;
    $("status-model").title = info.model.kinds;
    if (served) {
      models.loaded(info);
      settings.fix(info.cache);
      beside.most(info.server.streams);
    }
    models.refresh();
  },
};

/** A server's engine is there from the beginning: it shows what it is, and knows that there is a page. */
const attach = (holder) =>
  holder.queue(async () => {
    models.waits();
    view.put("status", "Connecting");
    try {
      await holder.open(models, {});
      view.put("status", "Ready");
    } catch (error) {
      await holder.drop();
      models.failed();
      view.put("status", "Not connected");
      alert.show(error, () => attach(holder), root.dataset.way);
    }
  });

const refuse = (code, message) => {
  root.toggleAttribute("data-refused", true);
  view.showState("error");
  view.showRefused();
  alert.show({ code, message });
};

const open = async () => {
  listen();
  watchLook({
    drawn: [stream.ring, chat.meter, beside.rings, figures.chart],
    docks: Object.values(DOCKS).map($),
    drawAll() {
      stream.ring.draw();
      chat.meter.draw();
      beside.rings.draw();
      figures.chart.draw(view.chartLabel(history));
    },
  });
  const key = served ? takeKey() : null;
  const link = openLink();
  let brooklet;
  try {
    brooklet = await import("./brooklet/index.js");
  } catch (error) {
    console.warn(error);
    refuse("internal", "The engine's files did not arrive. Load the page again.");
    return;
  }
  models = served ? createServerModel({ onChange: promise }) : openModels(brooklet);
  if (!served)
    listenForDrops($("drop"), (files) => {
      models.chooseFiles(files);
      ways[root.dataset.way].focus();
    });
  await Promise.all([models.refresh(), chat.open(link)]);
  chooseLinked(link);
  if (!isSecureContext && !served) return refuse("insecure", "");
  if (!navigator.gpu && !served) return refuse("no-webgpu", (await import("./brooklet/advice.js")).noWebGpu());
  const connect = (told) => brooklet.Engine.connect(document.baseURI, { ...told, ...(key && { key }) });
  const holder = createHolder(brooklet, on, served ? connect : null);
  stream.connect(holder);
  chat.connect(holder);
  beside.connect(holder);
  root.toggleAttribute("data-ready", true);
  if (served) attach(holder);
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

if (served) console.info("no service worker here: the page is of a program on this network");
else if (!isSecureContext || !navigator.serviceWorker)
  console.info("no service worker here: the page needs the network");
else navigator.serviceWorker.register("sw.js").catch((error) => console.info("no service worker:", error.message));

if (!served && (await updates())) location.reload();
else open();
