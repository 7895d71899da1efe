// What the ways need: send a text, copy, save to a file, a name that nothing else has.

const SAID_MS = 1600;

const said = (button, words) => {
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = words;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = before;
  }, SAID_MS);
};

/** A form is sent by its button, and by Enter in its field; Shift and Enter is a new line. */
export const onSent = (form, field, send) => {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
};

export const copy = (button, text) =>
  navigator.clipboard.writeText(text).then(
    () => said(button, "Copied"),
    () => said(button, "Not allowed"),
  );

export const saveFile = (name, parts, type) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

/** Pages that are not secure, which get no further than an explanation, have no `crypto.randomUUID`. */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16).padStart(8, "0")).join("");
