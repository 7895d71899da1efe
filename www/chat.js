// The way of the chat: the open conversation, what is written to it, its meter and its buttons.

import { copy, newId, saveFile } from "./actions.js";
import { askTwice, createChats } from "./chats.js";
import { openStore } from "./chatstore.js";
import { createComposer } from "./composer.js";
import { fileName, titleOf, writeChat } from "./exchange.js";
import { createMessages } from "./messages.js";
import { createSaying } from "./saying.js";
import { linkToChat, parseLink } from "./settings.js";
import { createSight } from "./sight.js";
import { createTalk } from "./talk.js";
import { createTitle } from "./title.js";
import * as view from "./chatview.js";
import { showProgress } from "./view.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;

const OPEN = "brooklet chat"; // in the session's storage: the conversation that a reload comes back to

const fresh = (system = "") => ({
  id: newId(),
  title: "New conversation",
  named: false,
  system,
  messages: [],
});

export const createChat = ({ settings, alert, figures, still, chosen, toStream }) => {
  let store = null;
  let chats = null;
  let talk = null;
  let holder = null;
  let chat = fresh();
  let orderNow = null; // what is being answered

  const busy = () => Boolean(talk) && talk.state !== "idle";
  const saying = createSaying($("chat-live"));
  const title = createTitle({
    onRename(name) {
      chat.title = name;
      chat.named = true;
      keep();
    },
  });
  const composer = createComposer({
    onSend: (text, editing) => (editing ? edit(text) : send(text)),
    onStop: () => talk?.stop(),
  });
  const messages = createMessages({
    scroller: $("talk"),
    list: $("messages"),
    earlier: $("earlier"),
    newest: $("chat-newest"),
    still,
    actions: { regenerate: () => again("regenerate"), edit: () => startEdit(), remove: () => removeTurn() },
  });

  const sight = createSight({
    canvas: $("meter"),
    chartCanvas: $("chart"),
    figures,
    messages,
    said: () => chat.messages,
    info: () => holder?.info,
    busy,
  });

  // Keeping

  /** A reload comes back to this one, and not to what a link asked for. */
  const remember = () => {
    sessionStorage.setItem(OPEN, chat.id);
    if (parseLink(location.hash).system !== undefined) history.replaceState(null, "", "#chat");
  };

  const keep = async (from = chat.messages.length) => {
    const { messages: said, ...rest } = chat;
    if (!said.length) return;
    remember();
    try {
      await store.write(chat.id, from, said.slice(from));
      await store.put({ ...rest, changed: Date.now() });
      await chats.refresh();
    } catch (error) {
      alert.say("This conversation is not kept", `The browser has refused it: ${error.message} It can be exported.`);
    }
  };

  // Showing

  const showMessages = () => {
    root.toggleAttribute("data-talk", chat.messages.length > 0);
    messages.show(chat.messages);
  };

  const showChat = () => {
    title.show(chat);
    view.showSystem(chat.system);
    showMessages();
    composer.reset();
    sight.show(null);
  };

  const openChat = async (meta) => {
    if (busy()) await stopped();
    const said = await store.messages(meta.id);
    chat = { id: meta.id, title: meta.title, named: meta.named, system: meta.system, messages: said };
    talk?.forget();
    alert.hide();
    remember();
    showChat();
    await chats.refresh();
  };

  const newChat = async (system = "") => {
    if (busy()) await stopped();
    chat = fresh(system);
    talk?.forget();
    alert.hide();
    sessionStorage.removeItem(OPEN);
    showChat();
    await chats?.refresh();
  };

  // Turns

  const on = {
    state(state) {
      view.showState(state);
      composer.state(state);
      sight.rest();
    },
    piece({ text, thought }, now) {
      const last = chat.messages.at(-1);
      last[thought ? "thoughts" : "content"] = (last[thought ? "thoughts" : "content"] ?? "") + text;
      messages.piece(text, thought);
      if (!thought) saying.push(text);
      sight.count(now, talk.base);
    },
    async end(last, { base, messages: told }) {
      if (base + told.length === chat.messages.length && told.at(-2).content === orderNow.text) takeRest(told.at(-1));
      else takeOver(base, told);
      messages.finish(last);
      saying.finish();
      sight.end(last, base);
      await keep(Math.max(0, chat.messages.length - 2));
    },
    /** Nothing has come of it: everything is as it was, and the question can be sent once more. */
    async takenBack({ before, previous, text }) {
      messages.finish();
      chat.messages.splice(before.length, Infinity, ...previous);
      if (!previous.length && !composer.text) composer.fill(text);
      showMessages();
      await keep(before.length);
    },
    async error(error, order) {
      messages.finish();
      const last = chat.messages.at(-1);
      if (last?.role === "assistant" && !last.content && !last.thoughts) chat.messages.pop();
      showMessages();
      sight.show(null);
      await keep(Math.max(0, chat.messages.length - 2));
      const retry = error.code === "no-template" ? toStream : () => begin({ ...order, kind: "anew" });
      if (error.code === "bad-option" && chat.system) $("system").open = true; // most likely it is too long
      alert.show(error, retry, "chat");
    },
  };

  const plain = ({ role, content, thoughts }) => ({ role, content, ...(thoughts && { thoughts }) });

  /** What was made before it was stopped has been said too. */
  const takeRest = (whole) => {
    const known = chat.messages.at(-1);
    for (const [name, thought] of [
      ["thoughts", true],
      ["content", false],
    ]) {
      const rest = (whole[name] ?? "").slice((known[name] ?? "").length);
      if (rest) messages.piece(rest, thought);
    }
    chat.messages[chat.messages.length - 1] = plain(whole);
  };

  /** The conversation holds other messages than the page: what was stopped before it was read is taken back. */
  const takeOver = (base, told) => {
    chat.messages.splice(base, Infinity, ...told.map(plain));
    if (!composer.text) composer.fill(orderNow.text);
    showMessages();
  };

  /** Asks for an answer to `text`, which follows the messages `before`; those after it are replaced. */
  const begin = (order) => {
    if (!talk || busy()) return;
    alert.hide();
    sight.begin();
    const { before, text, kind } = order;
    const previous = chat.messages.slice(before.length);
    const asked = kind === "regenerate" ? previous[0] : { role: "user", content: text };
    orderNow = { ...order, before, previous };
    chat.messages.splice(before.length, Infinity, asked);
    if (!chat.named && before.length === 0) chat.title = titleOf(text);
    title.show(chat);
    if (previous.length) showMessages();
    else messages.add(asked);
    root.toggleAttribute("data-talk", true);
    view.showSystem(chat.system);
    keep(before.length);
    chat.messages.push({ role: "assistant", content: "" });
    messages.add(chat.messages.at(-1), true);
    talk.begin({
      ...orderNow,
      model: chosen(),
      conversation: () => ({ ...settings.chat(), ...(chat.system && { system: chat.system }) }),
      answer: settings.answer,
    });
  };

  const lastQuestion = () => chat.messages.findLastIndex(({ role }) => role === "user");

  const again = (kind, text) => {
    const n = lastQuestion();
    if (n >= 0) begin({ kind, text: text ?? chat.messages[n].content, before: chat.messages.slice(0, n) });
  };

  const send = (text) => {
    // A question that was never answered makes way for the next.
    const unanswered = chat.messages.at(-1)?.role === "user";
    if (unanswered) talk?.forget();
    begin({ kind: "send", text, before: unanswered ? chat.messages.slice(0, -1) : [...chat.messages] });
  };

  const edit = (text) => again("edit", text);

  const startEdit = () => {
    const n = lastQuestion();
    if (n >= 0 && !busy()) composer.edit(chat.messages[n].content);
  };

  const removeTurn = async () => {
    if (busy()) return;
    chat.messages.splice(Math.max(0, lastQuestion()));
    talk?.forget();
    showChat();
    composer.focus();
    await store.write(chat.id, chat.messages.length, []);
  };

  const stopped = async () => {
    await talk.stop();
    while (busy()) await new Promise((done) => setTimeout(done, 20));
  };

  const keys = (event) => {
    if (root.dataset.way !== "chat" || event.isComposing) return;
    const key = event.key.toLowerCase();
    const ctrl = event.ctrlKey || event.metaKey;
    const act =
      ctrl && event.shiftKey && key === "o"
        ? () => newChat().then(composer.focus)
        : ctrl && !event.shiftKey && key === "k"
          ? view.toSearch
          : key === "escape" && busy() && !event.defaultPrevented
            ? () => talk.stop()
            : null;
    if (!act) return;
    event.preventDefault();
    act();
  };

  const listen = () => {
    document.addEventListener("keydown", keys);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) sight.request();
      else if (busy()) keep(Math.max(0, chat.messages.length - 2));
    });
    composer.onUp(startEdit);
    $("starters").addEventListener("click", ({ target }) => {
      if (target.localName !== "button" || !talk) return;
      send(target.textContent);
      composer.focus();
    });
    $("chat-new").addEventListener("click", () => newChat().then(composer.focus));
    $("to-chats").addEventListener("click", view.toSearch);
    $("chat-export").addEventListener("click", () =>
      saveFile(fileName(chat.title), [JSON.stringify(writeChat(chat), null, 1)], "application/json"),
    );
    $("chat-link").addEventListener("click", () => copy($("chat-link"), linkToChat(chat.system, chosen().url)));
    askTwice($("chat-delete"), async () => {
      const { id } = chat;
      await newChat();
      composer.focus();
      await store.remove(id);
      await chats.refresh();
    });
    $("system-text").addEventListener("change", ({ target }) => {
      chat.system = target.value.trim();
      talk?.forget();
      view.showBrief(chat.system);
      title.show(chat);
      sight.show(null);
      keep();
    });
    for (const name of ["memory", "kv"]) $(name).addEventListener("change", () => talk?.forget());
  };

  listen();
  showChat();

  return {
    meter: sight.meter,
    progress: (progress) => showProgress(progress, "chat-"),
    /** A link has brought a system prompt: it is shown, and nothing is sent. */
    async propose(system) {
      await newChat(system);
      view.showProposed();
    },
    async open(link) {
      store = await openStore();
      chats = createChats({
        store,
        current: () => chat.id,
        onOpen: openChat,
        onRemove: (id) => id === chat.id && newChat(),
        onProblem: (sentence) => alert.say("This file was not read", sentence),
      });
      const last = sessionStorage.getItem(OPEN);
      const meta = link.system === undefined && last ? (await store.list()).find(({ id }) => id === last) : null;
      await (meta ? openChat(meta) : chats.refresh());
    },
    connect(shared) {
      holder = shared;
      talk = createTalk(holder, on);
      composer.ready();
    },
    focus: composer.focus,
    leave() {
      if (busy()) talk.stop();
    },
    enter() {
      view.showState(talk?.state ?? "idle");
      sight.redraw();
    },
  };
};
