// Which model: the default, an address, a file; and those kept in this browser.

import { CATALOGUE } from "./catalogue.js";
import { bytes, partOf } from "./format.js";

const DEFAULT = {
  kind: "default",
  name: "SmolLM2-135M-Instruct",
  path: "models/SmolLM2-135M-Instruct.Q4_1.gguf",
  bytes: 98_000_000,
  sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

const nameOf = (url) => {
  if (url.startsWith("hf:")) return url.slice(url.indexOf("/") + 1);
  const last = new URL(url).pathname.split("/").pop() || url;
  let name = last;
  try {
    name = decodeURIComponent(last);
  } catch {
    // it is written so, and shown so
  }
  return name.replace(/\.gguf$/i, "");
};

/** A page of a publisher's, in a tab of its own. */
const outside = (text, href, label) => {
  const node = document.createElement("a");
  Object.assign(node, { href, textContent: text, target: "_blank", rel: "noopener noreferrer" });
  node.setAttribute("aria-label", label);
  return node;
};

const button = (text, label, act) => {
  const node = document.createElement("button");
  node.type = "button";
  node.className = "quiet";
  node.textContent = text;
  node.setAttribute("aria-label", label);
  node.addEventListener("click", act);
  return node;
};

const span = (className, text) => {
  const node = document.createElement("span");
  node.className = className;
  node.textContent = text;
  return node;
};

export const createModels = ({ brooklet, modelOf, onChange, onProblem }) => {
  const $ = (id) => document.getElementById(id);
  const address = $("model-url");
  const defaultUrl = new URL(DEFAULT.path, document.baseURI).href;
  let chosen = DEFAULT;
  let kept = [];

  const isKept = () => kept.find((m) => m.url === (chosen.url ?? (chosen.kind === "default" ? defaultUrl : "")));

  const listed = () => CATALOGUE.find(({ url }) => url === chosen.url);

  const describe = () => {
    const here = isKept();
    if (chosen.kind === "file")
      return {
        name: chosen.name,
        note: `${bytes(chosen.files.reduce((sum, { size }) => sum + size, 0))}, from your disk`,
      };
    if (here?.complete)
      return {
        name: chosen.name,
        note: `${bytes(here.total)}, already in this browser`,
      };
    if (here)
      return {
        name: chosen.name,
        note: `${partOf(here.bytes, here.total)} already here`,
      };
    if (chosen.kind === "default")
      return {
        name: chosen.name,
        note: `${bytes(chosen.bytes)}, downloaded once, then kept`,
      };
    const size = listed()?.size;
    return { name: chosen.name, note: `${size ? `${size}, ` : ""}downloaded once, then kept` };
  };

  const show = () => {
    const { name, note } = describe();
    $("model-now").replaceChildren(span("name", name), span("note", note));
    $("model-default").hidden = chosen.kind === "default";
    onChange({ name, note });
  };

  const choose = (next) => {
    chosen = next;
    if (chosen.kind !== "url") address.value = "";
    address.setAttribute("aria-invalid", "false");
    show();
  };

  const chooseUrl = (text) => {
    const url = modelOf(text);
    if (!url) return false;
    if (url === defaultUrl) choose(DEFAULT);
    else choose({ kind: "url", name: CATALOGUE.find((one) => one.url === url)?.name ?? nameOf(url), url });
    if (chosen.kind === "url") address.value = url;
    return true;
  };

  /** One file, or all files of a split model. */
  const chooseFiles = (list) => {
    const files = Array.from(list);
    const [file] = files;
    if (file) choose({ kind: "file", name: file.name.replace(/(-\d+-of-\d+)?\.gguf$/i, ""), files });
  };

  const item = (model) => {
    const node = document.createElement("li");
    const name = nameOf(model.url);
    const size = model.complete ? bytes(model.total) : `${partOf(model.bytes, model.total)}, incomplete, resumes`;
    const words = document.createElement("div");
    words.append(span("name", name), span("note", size));
    const use = button("Use", `Use ${name}`, () =>
      model.url === defaultUrl ? choose(DEFAULT) : choose({ kind: "url", name, url: model.url }),
    );
    const remove = button("Delete", `Delete ${name}`, async () => {
      const gone = await brooklet.forgetModel(model.url).catch(() => false);
      if (!gone) onProblem(`${name} could not be deleted just now; it may be in use.`);
      await refresh();
    });
    node.append(words, use, remove);
    return node;
  };

  const offer = ({ name, size, good, licence, from, url, page }) => {
    const node = document.createElement("li");
    const words = document.createElement("div");
    const source = span("note", `${licence}, from `);
    source.append(outside(from.split("/")[0], page, `${name} at Hugging Face, by ${from.split("/")[0]}`));
    words.append(span("name", name), span("note", `${size} · ${good}`), source);
    node.append(
      words,
      button("Use", `Use ${name}`, () => chooseUrl(url)),
    );
    return node;
  };
  $("catalogue").replaceChildren(...CATALOGUE.map(offer));

  const refresh = async () => {
    kept = await brooklet.keptModels().catch(() => []);
    $("kept-list").replaceChildren(...kept.map(item));
    $("kept").hidden = kept.length === 0;
    show();
  };

  address.addEventListener("change", () => {
    if (address.value.trim() === "") choose(DEFAULT);
    else if (!chooseUrl(address.value.trim())) {
      address.setAttribute("aria-invalid", "true");
      onProblem("The address of a model begins with https:// and leads to a GGUF file, or is hf:USER/REPO[:QUANT].");
    }
  });
  $("model-file").addEventListener("change", ({ target }) => {
    chooseFiles(target.files);
    target.value = "";
  });
  $("model-default").addEventListener("click", () => choose(DEFAULT));

  return {
    refresh,
    chooseUrl,
    chooseFiles,
    get name() {
      return chosen.name;
    },
    get url() {
      return chosen.kind === "url" ? chosen.url : "";
    },
    /** Same key, same model: nothing has to be loaded again. */
    get key() {
      return chosen.kind === "file" ? chosen.files : (chosen.url ?? chosen.kind);
    },
    source: () =>
      chosen.kind === "file"
        ? { model: chosen.files }
        : chosen.kind === "url"
          ? { model: chosen.url }
          : { model: defaultUrl, sha256: DEFAULT.sha256 },
  };
};

/** Files dropped anywhere; the overlay shows while one is over the page. */
export const listenForDrops = (overlay, onFiles) => {
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (yes) => {
    depth = yes ? depth : 0;
    overlay.hidden = !yes;
  };
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth++;
    over(true);
  });
  addEventListener("dragleave", (event) => hasFiles(event) && --depth <= 0 && over(false));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over(false);
    onFiles(event.dataTransfer.files);
  });
};
