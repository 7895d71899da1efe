// The open conversation's name, which can be given anew.

import { MOST } from "./exchange.js";

export const createTitle = ({ onRename }) => {
  const $ = (id) => document.getElementById(id);
  const [name, field] = [$("chat-title"), $("chat-name")];
  let chat = null;

  const menu = $("more");
  const fold = () => {
    menu.open = false;
  };
  menu.addEventListener("focusout", ({ relatedTarget }) => !menu.contains(relatedTarget) && fold());
  $("chat-export").addEventListener("click", fold);
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.preventDefault();
    fold();
    menu.querySelector("summary").focus();
  });

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
    fold();
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
    menu.querySelector("summary").focus();
  });

  return {
    show(next) {
      chat = next;
      close(false);
      name.textContent = chat.title;
      const empty = chat.messages.length === 0;
      menu.hidden = empty && !chat.system;
      for (const id of ["chat-rename", "chat-export", "chat-delete"]) $(id).hidden = empty;
      $("chat-link").hidden = !chat.system;
    },
  };
};
