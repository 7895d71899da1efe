// The list of conversations: search, open, delete, all out to a file and in from one.

import { newId, saveFile } from "./actions.js";
import { MOST, readChats, writeChat } from "./exchange.js";
import { count } from "./format.js";

const SHOWN = 12; // of the list, before all are asked for
const SEARCH_MS = 150;
const SURE_MS = 4000;

const days = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });
const hours = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });

const when = (ms) => {
  const date = new Date(ms);
  return date.toDateString() === new Date().toDateString() ? hours.format(date) : days.format(date);
};

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
};

/** A button that asks once more before it acts. */
export const askTwice = (button, act) => {
  const name = button.textContent;
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = name;
  };
  button.addEventListener("blur", calm);
  button.addEventListener("click", () => {
    if (timer) {
      calm();
      act();
      return;
    }
    button.textContent = "Sure?";
    timer = setTimeout(calm, SURE_MS);
  });
};

export const createChats = ({ store, current, onOpen, onRemove, onProblem }) => {
  const $ = (id) => document.getElementById(id);
  const search = $("search");
  let whole = false;
  let asked = 0;

  const item = (chat) => {
    const node = make("li", "", "");
    const open = make("button", "chat-open", "");
    open.type = "button";
    open.append(make("span", "name", chat.title), make("span", "note", when(chat.changed)));
    if (chat.id === current()) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => onOpen(chat));
    const remove = make("button", "quiet", "Delete");
    remove.type = "button";
    remove.setAttribute("aria-description", chat.title);
    askTwice(remove, async () => {
      await onRemove(chat.id); // what is still spoken in it ends first
      await store.remove(chat.id);
      await refresh();
      search.focus();
    });
    node.append(open, remove);
    return node;
  };

  const refresh = async () => {
    const round = ++asked;
    const words = search.value.trim().toLowerCase();
    const chats = await (words ? store.search(words) : store.list());
    if (round !== asked) return; // a later question has been asked
    const shown = whole || words ? chats : chats.slice(0, SHOWN);
    $("chat-list").replaceChildren(...shown.map(item));
    $("chat-more").hidden = shown.length === chats.length;
    $("chat-more").textContent = `All ${count(chats.length)} conversations`;
    $("chats-export").hidden = chats.length === 0;
    $("chats-none").hidden = chats.length > 0;
    $("chats-none").textContent = words
      ? "No conversation has these words."
      : store.lasting
        ? "What you talk about is kept in this browser, and nowhere else."
        : "This browser keeps nothing here: conversations last as long as the page.";
  };

  const take = async ([file]) => {
    if (!file) return;
    try {
      if (file.size > MOST.bytes) throw new Error(`This file is larger than ${MOST.bytes / 1e6} MB.`);
      const chats = readChats(await file.text());
      const kept = chats.map(({ messages, ...chat }, n) => ({
        chat: { ...chat, id: newId(), changed: Date.now() - n },
        messages,
      }));
      for (const { chat, messages } of kept) {
        await store.write(chat.id, 0, messages);
        await store.put(chat);
      }
      search.value = "";
      await refresh();
      onOpen(kept[0].chat);
    } catch (error) {
      onProblem(error.message);
    }
  };

  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, SEARCH_MS);
  });
  $("chat-more").addEventListener("click", () => {
    whole = true;
    refresh();
  });
  $("chats-import").addEventListener("change", async ({ target }) => {
    await take([...target.files]);
    target.value = "";
  });
  $("chats-export").addEventListener("click", async () => {
    const conversations = [];
    for (const chat of await store.list()) {
      conversations.push(writeChat({ ...chat, messages: await store.messages(chat.id) }));
    }
    saveFile("brooklet-chats.json", [JSON.stringify({ conversations }, null, 1)], "application/json");
  });

  return { refresh };
};
