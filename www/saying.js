// For screen readers: whole sentences, not more than one message in five seconds, never a backlog.

const EVERY_MS = 5000;
const KEPT = 2000;
const LONGEST = 320;

const ends = (text) => Math.max(...[". ", "! ", "? ", "\n"].map((end) => text.lastIndexOf(end)));

export const createSaying = (live) => {
  let unsaid = "";

  const say = (text) => {
    const ready = text.trim();
    const last = ready.slice(-LONGEST);
    if (ready) live.textContent = ready.length > LONGEST ? last.slice(last.search(/[.!?\n]\s/) + 1).trim() : ready;
  };

  setInterval(() => {
    const end = ends(unsaid);
    if (end < 0) return;
    say(unsaid.slice(0, end + 1));
    unsaid = unsaid.slice(end + 1);
  }, EVERY_MS);

  return {
    push(text) {
      unsaid = (unsaid + text).slice(-KEPT);
    },
    /** What is left at the end is a sentence too. */
    finish() {
      say(unsaid);
      unsaid = "";
    },
    /** At once, whatever waits. */
    now(text) {
      unsaid = "";
      live.textContent = text;
    },
    clear() {
      unsaid = "";
    },
  };
};
