// Where brooklet itself has served the page: the engine is the server's, with its model and its cache.

import { bytes } from "./format.js";
import { put } from "./view.js";

const KEY = "brooklet key"; // in the session's storage, so that the page can be loaded anew

export const served = document.documentElement.hasAttribute("data-server");

const $ = (id) => document.getElementById(id);
const near = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(location.hostname);
const where = near ? "on this machine" : `on ${location.host}`;

/** The key that the address has brought, which it does not keep, or that one before has. */
export const takeKey = () => {
  const query = new URLSearchParams(location.hash.slice(1));
  const key = query.get("key");
  if (key === null) return sessionStorage.getItem(KEY);
  sessionStorage.setItem(KEY, key);
  query.delete("key");
  history.replaceState(null, "", `${location.pathname}#${query}`);
  return key;
};

/** The server's model, in the place of those that a page can choose from. */
export const createServerModel = ({ onChange }) => {
  for (const part of document.querySelectorAll(".models > :not(h2, #model-now)")) part.hidden = true;
  $("wasm-bytes").parentElement.hidden = true;
  if (!near) put("privacy", `The engine runs ${where}. What you type is sent there, and nowhere else.`);
  let name = "The server's model";

  const show = (note) => {
    const parts = [
      ["name", name],
      ["note", note],
    ].map(([className, textContent]) => Object.assign(document.createElement("span"), { className, textContent }));
    $("model-now").replaceChildren(...parts);
    onChange({ name, note, where });
  };

  return {
    key: "server",
    url: "",
    get name() {
      return name;
    },
    source: () => ({}),
    chooseUrl: () => false,
    chooseFiles() {},
    refresh() {},
    waits: ({ stage, loaded, total } = {}) =>
      show(
        stage === "compile"
          ? "its kernels are being compiled"
          : total
            ? `being loaded, ${bytes(loaded)} of ${bytes(total)}`
            : "being asked for",
      ),
    loaded(info) {
      name = info.model.name;
      show(`${bytes(info.model.bytes)}, on ${info.adapter.name}`);
    },
    failed: () => show("not connected"),
  };
};
