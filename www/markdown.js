// Markdown while it streams. The text comes from a model: it becomes elements of the few kinds below and text, never
// HTML; addresses lead to the web and to mail alone; pictures are not fetched.

import * as smd from "./lib/smd.js";
import { copy } from "./actions.js";

const SCHEMES = ["http:", "https:", "mailto:"];
const DEEPEST = 16; // levels; what is nested deeper goes on in the deepest
const LONGEST_TEXT = 4096; // characters of a text node: one that grows is copied each time
const LONGEST_ADDRESS = 2048; // what is longer is no address, and text that waits for its end is not shown

const make = (tag, className = "") => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  return node;
};

/** The address, where it is one to follow; "" otherwise. */
export const addressOf = (text) => {
  try {
    const url = new URL(text); // without a base: an address of this page is none
    return SCHEMES.includes(url.protocol) ? url.href : "";
  } catch {
    return "";
  }
};

const heading = (level) => () => make(`h${Math.min(6, level + 2)}`); // the page has the first two

/** What is wider than the page scrolls by itself, by keyboard too. */
const wide = (node, label) => {
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", label);
  return node;
};

const codeBlock = () => {
  const outer = make("div", "code");
  const bar = make("div", "code-bar");
  const button = make("button", "quiet");
  const pre = wide(make("pre"), "Code");
  const inner = make("code");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy this code");
  button.addEventListener("click", () => copy(button, inner.textContent));
  bar.append(make("span", "lang"), button);
  pre.append(inner);
  outer.append(bar, pre);
  return { outer, inner };
};

const tableBox = () => {
  const outer = wide(make("div", "table"), "Table");
  const inner = outer.appendChild(make("table"));
  return { outer, inner };
};

const tableRow = (table) => {
  const parts = table.children.length;
  const part = parts < 2 ? table.appendChild(make(parts ? "tbody" : "thead")) : table.children[1];
  return part.appendChild(make("tr"));
};

const tableCell = (row) => {
  if (row.parentElement?.tagName !== "THEAD") return make("td");
  const cell = make("th");
  cell.scope = "col";
  return cell;
};

const checkbox = () => {
  const box = make("span", "task");
  box.textContent = "☐ ";
  return box;
};

const link = (className = "") => make("a", className);

const image = () => {
  const node = link("image");
  node.textContent = "Picture: ";
  return node;
};

const formula = () => {
  const node = make("span", "formula");
  node.textContent = "$";
  return node;
};

const KINDS = new Map([
  [smd.PARAGRAPH, () => make("p")],
  [smd.HEADING_1, heading(1)],
  [smd.HEADING_2, heading(2)],
  [smd.HEADING_3, heading(3)],
  [smd.HEADING_4, heading(4)],
  [smd.HEADING_5, heading(5)],
  [smd.HEADING_6, heading(6)],
  [smd.CODE_BLOCK, codeBlock],
  [smd.CODE_FENCE, codeBlock],
  [smd.CODE_INLINE, () => make("code")],
  [smd.ITALIC_AST, () => make("em")],
  [smd.ITALIC_UND, () => make("em")],
  [smd.STRONG_AST, () => make("strong")],
  [smd.STRONG_UND, () => make("strong")],
  [smd.STRIKE, () => make("s")],
  [smd.LINK, () => link()],
  [smd.RAW_URL, () => link()],
  [smd.IMAGE, image],
  [smd.BLOCKQUOTE, () => make("blockquote")],
  [smd.LINE_BREAK, () => make("br")],
  [smd.RULE, () => make("hr")],
  [smd.LIST_UNORDERED, () => make("ul")],
  [smd.LIST_ORDERED, () => make("ol")],
  [smd.LIST_ITEM, () => make("li")],
  [smd.CHECKBOX, checkbox],
  [smd.TABLE, tableBox],
  [smd.TABLE_CELL, tableCell],
  [smd.EQUATION_BLOCK, formula],
  [smd.EQUATION_INLINE, formula],
]);

const addText = (parent, text) => {
  const last = parent.lastChild;
  if (last?.nodeType === Node.TEXT_NODE && last.length < LONGEST_TEXT) last.appendData(text);
  else if (text) parent.append(text);
};

const setAddress = (node, text) => {
  const href = addressOf(text);
  node.dataset.address = href ? "followed" : "said";
  if (!href) {
    addText(node, ` (${text})`); // to be read, and not to be followed
    return;
  }
  node.href = href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
};

/** What looked like a link, and was words in brackets. */
const isWords = (node) => node.tagName === "A" && !node.className && !node.dataset.address;

const setAttribute = (node, type, value) => {
  if (type === smd.HREF || type === smd.SRC) setAddress(node, value);
  else if (type === smd.CHECKED) node.textContent = "☑ ";
  else if (type === smd.START) node.start = Math.min(Number(value) || 1, 1e9);
  else if (type === smd.LANG) {
    const box = node.closest(".code");
    if (box) box.querySelector(".lang").textContent = value.trim().slice(0, 40);
  }
};

const createRenderer = (root) => {
  const stack = [root];
  let beyond = 0; // levels that are open and not shown
  let waiting = ""; // text for the deepest of them

  const flush = () => {
    if (waiting) addText(stack.at(-1), waiting);
    waiting = "";
  };

  const open = (kind) => {
    const parent = stack.at(-1);
    if (kind === smd.TABLE_ROW) return tableRow(parent);
    const made = KINDS.get(kind)?.(parent) ?? make("span");
    parent.append(made.outer ?? made);
    return made.inner ?? made;
  };

  const close = (node) => {
    if (node.className === "formula") addText(node, "$");
    else if (isWords(node)) {
      node.prepend("[");
      addText(node, "]");
    }
  };

  return {
    data: null,
    flush,
    add_token(_, kind) {
      flush();
      if (stack.length > DEEPEST) beyond++;
      else stack.push(open(kind));
    },
    end_token() {
      flush();
      if (beyond > 0) beyond--;
      else if (stack.length > 1) close(stack.pop());
    },
    add_text(_, text) {
      waiting += text;
    },
    set_attr(_, type, value) {
      flush();
      if (beyond === 0) setAttribute(stack.at(-1), type, value);
      else if (type === smd.HREF || type === smd.SRC) addText(stack.at(-1), ` (${value})`);
    },
    /** What is still open at the end. */
    finish() {
      flush();
      for (const node of stack) if (isWords(node)) node.prepend("[");
    },
  };
};

/** Writes into `root` what comes, each piece of it once: what is there is never read again. */
export const createMarkdown = (root) => {
  const renderer = createRenderer(root);
  const parser = smd.parser(renderer);
  let plain = false; // the parser could not go on: text is text from there on

  const guard = (text, work) => {
    if (!plain) {
      try {
        work();
        return;
      } catch (error) {
        console.warn(error);
        plain = true;
      }
    }
    renderer.add_text(null, text);
  };

  /** What waits for the end of an address that does not come. */
  const release = () => {
    renderer.add_text(null, parser.pending);
    parser.pending = "";
  };

  /** A fence ends on a line of its own; 0.2.15 ends it after code too, and loses that code's last character. */
  const keepLast = (character) => {
    const { token, pending, fence_end } = parser;
    if (token !== smd.CODE_FENCE || character !== "\n" || !pending || pending[0] === "\n" || fence_end === 0) return;
    parser.text += pending;
    parser.pending = "";
  };

  return {
    write(text) {
      // One character after the other: what is made of them does not depend on where the text was cut.
      for (const character of text) {
        guard(character, () => {
          keepLast(character);
          smd.parser_write(parser, character);
          if (parser.pending.length >= LONGEST_ADDRESS) release();
        });
      }
      renderer.flush();
    },
    end() {
      guard("", () => {
        const { pending } = parser;
        smd.parser_end(parser);
        // An address without an end is text, as it was written.
        if (pending.startsWith("](")) release();
      });
      renderer.finish();
    },
  };
};
