// What buttons do in both ways: copy, save to a file.

const SAID_MS = 1600;

const said = (button, words) => {
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = words;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = before;
  }, SAID_MS);
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
