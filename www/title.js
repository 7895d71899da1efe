// The open conversation's name, which can be given anew.

import { MOST } from "./exchange.js";

export const createTitle = ({ onRename }) => {
  const $ = (id) => document.getElementById(id);
  const [name, field] = [$("chat-title"), $("chat-name")];
  let chat = null;

  const close = (keep) => {
    if (field.hidden) return;
    field.hidden = true;
    name.hidden = false;
    const text = field.value.trim().slice(0, MOST.title);
    if (keep && text && text !== chat.title) {
      name.textContent = text;
      onRename(text);
    }
  };

  $("chat-rename").addEventListener("click", () => {
    field.value = chat.title;
    name.hidden = true;
    field.hidden = false;
    field.focus();
    field.select();
  });
  field.addEventListener("blur", () => close(true));
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    close(event.key === "Enter");
    $("chat-rename").focus();
  });

  return {
    show(next) {
      chat = next;
      close(false);
      name.textContent = chat.title;
      for (const id of ["chat-rename", "chat-export", "chat-delete"]) $(id).hidden = chat.messages.length === 0;
      $("chat-link").hidden = !chat.system;
    },
  };
};
