// Conversations kept in this browser. A turn writes its own messages and no others, however long the conversation is.

import { openDB } from "./lib/idb.js";

const FOUND = 200; // conversations that a search gives at most

const all = (id) => IDBKeyRange.bound([id, 0], [id, Infinity]);

/** Where a browser keeps nothing (some private windows), conversations last as long as the page. */
const inMemory = () => {
  const chats = new Map();
  const texts = new Map();
  return {
    lasting: false,
    list: async () => [...chats.values()].sort((a, b) => b.changed - a.changed),
    put: async (chat) => void chats.set(chat.id, { ...chat }),
    messages: async (id) => structuredClone(texts.get(id) ?? []),
    async write(id, from, messages) {
      const kept = texts.get(id)?.slice(0, from) ?? [];
      texts.set(id, [...kept, ...structuredClone(messages)]);
    },
    async remove(id) {
      chats.delete(id);
      texts.delete(id);
    },
    async search(words) {
      const has = (text) => text.toLowerCase().includes(words);
      return (await this.list()).filter(
        ({ id, title, system }) =>
          has(title) || has(system) || (texts.get(id) ?? []).some(({ content }) => has(content)),
      );
    },
  };
};

const inDatabase = (db) => ({
  lasting: true,
  /** Newest first, without their messages. */
  list: async () => (await db.getAllFromIndex("chats", "changed")).reverse(),
  put: (chat) => db.put("chats", chat),
  messages: async (id) => (await db.getAll("messages", all(id))).map(({ message }) => message),
  /** Replaces all messages from number `from` on. */
  async write(id, from, messages) {
    const tx = db.transaction("messages", "readwrite");
    tx.store.delete(IDBKeyRange.bound([id, from], [id, Infinity]));
    messages.forEach((message, n) => tx.store.put({ chat: id, n: from + n, message }));
    await tx.done;
  },
  async remove(id) {
    const tx = db.transaction(["chats", "messages"], "readwrite");
    tx.objectStore("chats").delete(id);
    tx.objectStore("messages").delete(all(id));
    await tx.done;
  },
  /** Conversations whose title or text has these words, in lower case. */
  async search(words) {
    const chats = await this.list();
    const named = chats.filter(({ title, system }) => `${title}\n${system}`.toLowerCase().includes(words));
    const found = new Set(named.map(({ id }) => id));
    let cursor = await db.transaction("messages").store.openCursor();
    while (cursor && found.size < FOUND) {
      const { chat, message } = cursor.value;
      if (found.has(chat)) {
        cursor = await cursor.continue([chat, Infinity]); // past the rest of this one
        continue;
      }
      if (message.content.toLowerCase().includes(words)) found.add(chat);
      cursor = await cursor.continue();
    }
    return chats.filter(({ id }) => found.has(id));
  },
});

export const openStore = async () => {
  try {
    const db = await openDB(`brooklet chats ${new URL(".", document.baseURI).pathname}`, 1, {
      upgrade(fresh) {
        fresh.createObjectStore("chats", { keyPath: "id" }).createIndex("changed", "changed");
        fresh.createObjectStore("messages", { keyPath: ["chat", "n"] });
      },
      // Another tab has a newer version of the page, which changes what is kept.
      blocking: (_old, _new, { target }) => target.close(),
    });
    return inDatabase(db);
  } catch (error) {
    console.info("conversations are not kept:", error.message);
    return inMemory();
  }
};
