// Where a message is written: Enter sends, Shift and Enter is a new line, the arrow up in an empty one edits the last.

import { onSent } from "./actions.js";

export const createComposer = ({ onSend, onStop }) => {
  const $ = (id) => document.getElementById(id);
  const box = $("say");
  let ready = false;
  let idle = true;
  let editing = false;

  const show = () => {
    $("editing").hidden = !editing;
    $("send").textContent = editing ? "Send anew" : "Send";
  };

  const reset = () => {
    box.value = "";
    editing = false;
    show();
  };

  const send = () => {
    const text = box.value.trim();
    if (!text || !ready || !idle) return;
    const anew = editing;
    reset();
    onSend(text, anew);
  };

  onSent($("chat-dock"), box, send);
  $("chat-stop").addEventListener("click", onStop);
  $("edit-cancel").addEventListener("click", () => {
    reset();
    box.focus();
  });

  let up = () => {};
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowUp" && box.value === "" && !editing) {
      event.preventDefault();
      up();
    } else if (event.key === "Escape" && editing) {
      event.preventDefault();
      reset();
    }
  });

  return {
    reset,
    get text() {
      return box.value;
    },
    focus: () => box.focus(),
    fill(text) {
      box.value = text;
    },
    edit(text) {
      box.value = text;
      editing = true;
      show();
      box.focus();
      box.setSelectionRange(text.length, text.length);
    },
    onUp(act) {
      up = act;
    },
    /** There is an engine to answer. */
    ready() {
      ready = true;
    },
    /** What the conversation does: while it answers, the button stops it. */
    state(state) {
      const focused = $("chat-dock").contains(document.activeElement) && document.activeElement !== box;
      idle = state === "idle";
      $("send").hidden = !idle;
      $("chat-stop").hidden = idle;
      $("chat-stop").textContent = state === "loading" ? "Cancel" : "Stop";
      // The button that was pressed is gone.
      if (focused) (idle ? box : $("chat-stop")).focus({ preventScroll: true });
    },
  };
};
