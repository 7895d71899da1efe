// The ring as the meter of a conversation: a place on it is a token of the window, a message is an arc over its tokens
// that are still seen, and the newest overwrites the oldest. The stones in the middle are the system prompt.

import { stoneSpots } from "./ring.js";

const TAU = Math.PI * 2;
const TOP = -Math.PI / 2;
const COLOURS = ["water", "stone", "ink", "faint", "muted", "paper"];
const STONES = 28; // at most; beyond that each stands for more than one token
const ROOM = { pinned: 4, window: 4096, tokens: 0, forgotten: 0, gone: 0, messages: [] };

export const createMeter = (canvas, { onPick, onOpen }) => {
  const ctx = canvas.getContext("2d");
  let view = ROOM;
  let told = false;
  let picked = -1; // a message's number
  let colour = {};
  let size = 0;

  const shape = () => {
    const outer = size / 2 - (size < 200 ? 1 : 4);
    return { c: size / 2, outer, base: outer * 0.74 };
  };

  /** The arc of a message's tokens that are seen: angles, and its age between 0 (newest) and 1. */
  const arcOf = ({ first, tokens, visible }) => {
    const end = first + tokens - view.pinned;
    const from = end - Math.min(visible, view.window);
    const newest = view.messages.at(-1);
    const last = newest.first + newest.tokens - view.pinned;
    return {
      from: TOP + (from / view.window) * TAU,
      to: TOP + (end / view.window) * TAU,
      age: Math.min(1, (last - end) / view.window),
    };
  };

  const band = ({ c }, from, to, inner, outer) => {
    ctx.beginPath();
    ctx.arc(c, c, outer, from, to);
    ctx.arc(c, c, inner, to, from, true);
    ctx.closePath();
  };

  const drawRoom = ({ c, outer, base }) => {
    const ticks = Math.min(view.window, Math.floor((TAU * base) / 6));
    ctx.strokeStyle = colour.faint;
    ctx.lineWidth = 1.5;
    for (let i = 0; i < ticks; i++) {
      const angle = TOP + ((i + 0.5) / ticks) * TAU;
      const [x, y] = [Math.cos(angle), Math.sin(angle)];
      const to = base + (outer - base) * 0.1;
      ctx.beginPath();
      ctx.moveTo(c + x * base, c + y * base);
      ctx.lineTo(c + x * to, c + y * to);
      ctx.stroke();
    }
  };

  const drawMessage = (parts, message) => {
    const { outer, base } = parts;
    const { from, to, age } = arcOf(message);
    const gap = Math.min(0.022, (to - from) * 0.2);
    const mine = message.role === "user";
    // Who speaks is the band's width as well as its colour.
    const edge = base + (outer - base) * (mine ? 0.3 : 0.68);
    band(parts, from + gap / 2, Math.max(to - gap / 2, from + gap), base, edge);
    ctx.fillStyle = colour.paper;
    ctx.fill();
    ctx.fillStyle = ctx.strokeStyle = mine ? colour.muted : colour.water;
    ctx.globalAlpha = 0.35 + 0.65 * (1 - age);
    if (message.seen === "partly") {
      // The rest of it has been overwritten.
      ctx.lineWidth = 1.25;
      ctx.setLineDash([3, 3]);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.globalAlpha *= 0.45;
    }
    ctx.fill();
    ctx.globalAlpha = 1;
    if (message.message !== picked) return;
    ctx.strokeStyle = colour.ink;
    ctx.lineWidth = 1.5;
    band(parts, from + gap / 2, Math.max(to - gap / 2, from + gap), base - 3, edge + 3);
    ctx.stroke();
  };

  const drawWindow = ({ c, base }) => {
    const seen = view.messages.filter(({ visible }) => visible > 0);
    if (!seen.length) return;
    const { from } = arcOf(seen[0]);
    const { to } = arcOf(seen.at(-1));
    ctx.strokeStyle = ctx.fillStyle = colour.water;
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    ctx.arc(c, c, base - 7, from, to);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.arc(c + Math.cos(to) * (base - 7), c + Math.sin(to) * (base - 7), size < 200 ? 2.5 : 3.5, 0, TAU);
    ctx.fill();
  };

  const drawStones = ({ c, base }) => {
    ctx.lineWidth = 1.25;
    for (const { x, y, rx, ry, turn } of stoneSpots(Math.min(view.pinned, STONES), c, c, base)) {
      ctx.beginPath();
      ctx.ellipse(x, y, rx, ry, turn, 0, TAU);
      ctx.fillStyle = ctx.strokeStyle = colour.stone;
      ctx.globalAlpha = told ? 1 : 0.55;
      if (told) ctx.fill();
      else ctx.stroke();
    }
    ctx.globalAlpha = 1;
  };

  const draw = () => {
    if (!size) return;
    const parts = shape();
    ctx.clearRect(0, 0, size, size);
    drawRoom(parts);
    drawWindow(parts);
    for (const message of view.messages) if (message.visible > 0) drawMessage(parts, message);
    drawStones(parts);
  };

  const messageAt = (x, y) => {
    const { c, base } = shape();
    if (Math.hypot(x - c, y - c) < base - 18) return -1;
    const angle = Math.atan2(y - c, x - c);
    const within = ({ from, to }) => (((angle - from) % TAU) + TAU) % TAU <= to - from;
    return view.messages.find((m) => m.visible > 0 && within(arcOf(m)))?.message ?? -1;
  };

  const pick = (message) => {
    if (message === picked) return;
    picked = message;
    onPick(view.messages.find((m) => m.message === message) ?? null);
    draw();
  };

  const step = (by) => {
    const seen = view.messages.filter(({ visible }) => visible > 0);
    const now = seen.findIndex(({ message }) => message === picked);
    const next = now < 0 ? (by < 0 ? seen.length - 1 : 0) : Math.max(0, Math.min(seen.length - 1, now + by));
    if (seen[next]) pick(seen[next].message);
  };

  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    Escape: () => pick(-1),
    Enter: () => picked >= 0 && onOpen(picked),
  };

  canvas.addEventListener("pointermove", (event) => pick(messageAt(event.offsetX, event.offsetY)));
  canvas.addEventListener("pointerdown", (event) => pick(messageAt(event.offsetX, event.offsetY)));
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && pick(-1));
  canvas.addEventListener("click", () => picked >= 0 && onOpen(picked));
  canvas.addEventListener("blur", () => pick(-1));
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || (event.key === "Escape" && picked < 0)) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });

  return {
    draw,
    resize() {
      size = canvas.clientWidth;
      const ratio = Math.min(devicePixelRatio || 1, 3);
      canvas.width = canvas.height = Math.round(size * ratio);
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    },
    restyle() {
      const style = getComputedStyle(canvas);
      colour = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    },
    /** What the model can look back on; null before it has been told anything. */
    use(next) {
      told = next !== null;
      view = next ?? ROOM;
      const found = view.messages.find((m) => m.message === picked && m.visible > 0);
      if (!found) picked = -1;
      onPick(found ?? null);
    },
  };
};
