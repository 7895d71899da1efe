// The figures, captions and labels of a chat.

import { count, rate, time } from "./format.js";

const FINGER = matchMedia("(hover: none)");
const BRIEF = 72; // characters of a message in a caption

const $ = (id) => document.getElementById(id);

// Writing the same text again would still cost a layout.
const put = (id, text) => {
  const node = $(id);
  if (node.textContent !== text) node.textContent = text;
};

const STATES = { idle: "Ready", loading: "Loading", reading: "Reading", speaking: "Speaking" };

const brief = (text) => {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > BRIEF ? `${line.slice(0, BRIEF)}…` : line;
};

export const showState = (state) => {
  document.documentElement.dataset.chat = state;
  if (document.documentElement.dataset.way === "chat") put("status", STATES[state]);
  $("system-text").readOnly = state !== "idle";
};

export const showFigures = (stats, recent) => {
  const tps = recent ?? stats?.decodeTps ?? 0;
  put("chat-tps", tps > 0 ? rate(tps) : "–");
  put("chat-ttft", stats?.ttftMs > 0 ? time(stats.ttftMs) : "–");
  put("ttft", stats?.ttftMs > 0 ? time(stats.ttftMs) : "–");
};

/** Tokens that are seen, the system prompt among them; a server may keep more sinks than that has tokens. */
const seenOf = ({ tokens, forgotten }) => tokens - forgotten;

export const showWindow = (window) => {
  put("chat-seen", window ? count(seenOf(window)) : "–");
  put("chat-room", window ? `of ${count(window.pinned + window.window)}` : "");
  put("chat-forgotten", count(window?.forgotten ?? 0));
  put("chat-forgotten-key", count(window?.forgotten ?? 0));
};

export const showPicked = (picked, { window, base }, messages) => {
  if (!picked) {
    const many = window?.messages.some(({ visible }) => visible > 0);
    put("meter-caption", many ? `${FINGER.matches ? "Touch" : "Point at"} an arc to see what it is.` : "");
    return;
  }
  const { message, role, tokens, visible, seen } = picked;
  const who = role === "user" ? "you" : "the model";
  const sight = seen === "whole" ? "seen whole" : `${count(visible)} of them seen`;
  const text = brief(messages[message + base]?.content ?? "");
  put("meter-caption", `${who} · ${count(tokens)} tokens · ${sight} · “${text}”`);
};

export const labelMeter = (canvas, window) => {
  const number = (name) => window.messages.filter(({ seen }) => seen === name).length;
  const label = window
    ? `What the model sees: a system prompt of ${count(window.pinned)} tokens; ${count(number("whole"))} messages whole, ` +
      `${count(number("partly"))} in part, ${count(window.gone)} forgotten; ` +
      `room for ${count(Math.max(0, window.pinned + window.window - seenOf(window)))} tokens more`
    : "What the model sees: nothing yet";
  if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
};

export const showSystem = (system) => {
  $("system-text").value = system;
  $("system").open = false;
  $("system-note").hidden = true;
  showBrief(system);
};

export const showBrief = (system) => put("system-brief", system ? brief(system) : "none of yours");

/** It came with a link: whoever reads it shall see all of it. */
export const showProposed = () => {
  $("system").open = true;
  $("system-note").hidden = false;
};

export const toSearch = () => {
  $("chats").scrollIntoView({ block: "nearest" });
  $("search").focus({ preventScroll: true });
  $("search").select();
};
