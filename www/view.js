// The figures, captions and labels beside the text.

import { bytes, count, partOf, rate, span, time } from "./format.js";

const FINGER = matchMedia("(hover: none)");

const $ = (id) => document.getElementById(id);

// Writing the same text again would still cost a layout.
export const put = (id, text) => {
  const node = $(id);
  if (node.textContent !== text) node.textContent = text;
};

export const STATES = {
  idle: "Ready",
  loading: "Loading",
  streaming: "Streaming",
  paused: "Paused",
  stopped: "Stopped",
  error: "Stopped",
};

const readable = (text) => `“${text.trim().replace(/\n/g, "↵") || text.replace(/\n/g, "↵").replace(/ /g, "␣")}”`;

const tierOf = ({ f16, subgroups, cpu }) =>
  [f16 && "f16", subgroups && "subgroups", cpu && "software, slow"].filter(Boolean).join(", ") || "WebGPU core";

export const showRefused = () => put("status", "Not here");

export const showState = (state) => {
  document.documentElement.dataset.state = state;
  if (document.documentElement.dataset.way === "stream") put("status", STATES[state]);
  $("pause").textContent = state === "paused" ? "Continue" : "Pause";
  $("stop").textContent = state === "loading" ? "Cancel" : "Stop";
};

export const showInfo = ({ adapter, tier, bytes: size }) => {
  for (const id of ["gpu-bytes", "chat-gpu-bytes", "beside-gpu-bytes"]) put(id, bytes(size.gpu));
  put("wasm-bytes", bytes(size.wasm));
  put("adapter", adapter.name || adapter.backend || "unnamed");
  put("tier", tierOf(tier));
};

export const showStats = (stats, tps) => {
  put("tokens", count(stats.position));
  put("tps", tps > 0 ? rate(tps) : "–");
  put("ttft", stats.ttftMs > 0 ? time(stats.ttftMs) : "–");
  put("forgotten", count(stats.evicted));
  put("forgotten-key", count(stats.evicted));
  if (stats.wasmBytes) put("wasm-bytes", bytes(stats.wasmBytes));
};

export const showCaption = (slots, place, touched) => {
  const found = place >= 0 ? slots.at(place) : null;
  const slot = slots && place >= slots.sinks ? `slot ${count(place - slots.sinks)}` : "";
  if (!found) {
    const idle = touched ? "" : `${FINGER.matches ? "Touch" : "Point at"} the ring to see a token.`;
    put("ring-caption", place >= 0 ? `${slot || "a sink"}, still empty` : idle);
    return;
  }
  const { n, text, kind } = found;
  const where = kind === "sink" ? "a sink: it stays" : slot;
  const age = slots.last - n;
  const when = kind === "unseen" ? "out of the window" : age === 0 ? "the newest" : `${count(age)} ago`;
  put(
    "ring-caption",
    [text ? readable(text) : "part of a character", `token ${count(n)}`, where, kind === "sink" ? "" : when]
      .filter(Boolean)
      .join(" · "),
  );
};

export const labelRing = (canvas, slots, evicted) => {
  const seen = Math.min(slots.window, Math.max(0, slots.last + 1 - slots.sinks));
  canvas.setAttribute(
    "aria-label",
    `The ring: ${count(seen)} of ${count(slots.window)} window places filled, ` +
      `${count(slots.sinks)} sinks, ${count(evicted)} tokens forgotten`,
  );
};

export const chartLabel = (history) => (history.samples.length ? `over ${span(history.duration)}` : "");

export const labelChart = (canvas, { samples, duration }) => {
  if (!samples.length) return;
  const mean = samples.reduce((a, b) => a + b, 0) / samples.length;
  canvas.setAttribute(
    "aria-label",
    `Tokens per second over ${span(duration)}: ${rate(mean)} on average, ` +
      `between ${rate(Math.min(...samples))} and ${rate(Math.max(...samples))}`,
  );
};

export const showSinks = ({ away, running, switchable, left }) => {
  const button = $("sinks-button");
  button.textContent = away ? "Put the sinks back" : "Take the sinks away";
  button.setAttribute("aria-pressed", String(away));
  const later = "This takes effect at the next start.";
  const text = !away
    ? "The stones in the middle are the first tokens of the text, and the model leans on them. " +
      "Take them away while it writes: once the window has filled, the text falls apart."
    : !running
      ? "The sinks are away: once the window has filled, the text falls apart."
      : left > 0
        ? `The sinks are away. In ${count(left)} tokens the window is full; then watch the text fall apart.`
        : "The sinks are away and the window is full: watch the text fall apart.";
  put("sinks-text", running && !switchable ? `${text} ${later}` : text);
};

const VERBS = {
  verify: "Checking",
  load: "",
  compile: "Preparing the graphics card",
};

/** `where` is what the ids of the way's progress begin with. */
export const showProgress = ({ stage, from, loaded, total }, where = "") => {
  const bar = $(`${where}progress`);
  const known = stage !== "compile" && total > 0;
  if (known) bar.value = loaded / total;
  else bar.removeAttribute("value");
  const amount = stage === "compile" || (!loaded && !total) ? "" : partOf(loaded, total);
  const source = stage === "load" ? { cache: "from this browser", file: "from your disk", network: "" }[from] : "";
  put(`${where}progress-text`, [VERBS[stage], amount, source].filter(Boolean).join(" ") || "Opening …");
};
