// The ring, drawn live. Angles run clockwise from the top; a bar is as long as its token's text.

const TAU = Math.PI * 2;
const TOP = -Math.PI / 2;
const COLOURS = ["water", "stone", "ink", "faint", "paper"];

export const stoneSpots = (sinks, cx, cy, inner) => {
  if (sinks > 8) {
    const r = inner * 0.82;
    const step = Math.min(TAU / sinks, 0.3);
    return Array.from({ length: sinks }, (_, i) => {
      const a = TOP + (i - (sinks - 1) / 2) * step;
      return {
        x: cx + r * Math.cos(a),
        y: cy + r * Math.sin(a),
        rx: 3.2,
        ry: 3.2,
        turn: 0,
      };
    });
  }
  const small = inner < 60;
  const unit = small ? inner * 0.13 : Math.min(inner * 0.085, 10);
  const gap = unit * 2.7;
  const y = small ? cy : cy - inner * 0.36;
  // Pebbles are no two alike, and the same ones every time.
  return Array.from({ length: sinks }, (_, i) => ({
    x: cx + (i - (sinks - 1) / 2) * gap,
    y: y + unit * [0.1, -0.16, 0.12, -0.04][i % 4],
    rx: unit * [1.08, 1.18, 0.96, 1.12][i % 4],
    ry: unit * [0.82, 0.9, 0.78, 0.74][i % 4],
    turn: [-0.25, 0.2, 0.45, -0.12][i % 4],
  }));
};

export const createRing = (canvas, { onPick }) => {
  const ctx = canvas.getContext("2d");
  let slots = null;
  let sinksOff = false;
  let picked = -1;
  let colour = {};
  let size = 0;
  let spots = [];

  const shape = () => {
    const outer = size / 2 - (size < 200 ? 1 : 4);
    const base = outer * 0.74;
    // More slots than the circle has room for share a bar: the newest of them is shown.
    const bars = Math.min(slots.ring, Math.floor((TAU * base) / 1.7));
    return { c: size / 2, outer, base, bars };
  };

  const restyle = () => {
    const style = getComputedStyle(canvas);
    colour = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  };

  const resize = () => {
    size = canvas.clientWidth;
    const ratio = Math.min(devicePixelRatio || 1, 3);
    canvas.width = canvas.height = Math.round(size * ratio);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (slots && size) {
      const { c, base } = shape();
      spots = stoneSpots(slots.sinks, c, c, base);
    }
  };

  const bar = (angle, from, to) => {
    const x = Math.cos(angle);
    const y = Math.sin(angle);
    const { c } = shape();
    ctx.beginPath();
    ctx.moveTo(c + x * from, c + y * from);
    ctx.lineTo(c + x * to, c + y * to);
    ctx.stroke();
  };

  const newestIn = (b, bars) => {
    const from = Math.floor((b * slots.ring) / bars);
    const to = Math.floor(((b + 1) * slots.ring) / bars);
    let best = slots.sinks + from;
    for (let s = from + 1; s < to; s++) {
      if (slots.index[slots.sinks + s] > slots.index[best]) best = slots.sinks + s;
    }
    return best;
  };

  const angleOf = (slot) => TOP + ((slot + 0.5) / slots.ring) * TAU;

  const drawBars = ({ outer, base, bars }) => {
    const room = outer - base;
    const width = Math.max(1, Math.min(((TAU * base) / bars) * 0.6, 7));
    ctx.lineCap = width > 2 ? "butt" : "round";
    for (let b = 0; b < bars; b++) {
      const place = newestIn(b, bars);
      const n = slots.index[place];
      const angle = TOP + ((b + 0.5) / bars) * TAU;
      const age = slots.last - n;
      ctx.lineWidth = width;
      ctx.globalAlpha = 1;
      if (n < 0) {
        ctx.strokeStyle = colour.faint;
        bar(angle, base, base + room * 0.06);
      } else if (age >= slots.window) {
        ctx.strokeStyle = colour.faint;
        bar(angle, base, base + room * 0.16);
      } else {
        const fresh = 1 - age / slots.window;
        const long = 0.2 + 0.56 * Math.min(1, slots.text[place].trim().length / 7);
        // The newest stand up like a small wave at the head.
        const crest = 0.24 * Math.exp(-age / 6);
        ctx.globalAlpha = 0.2 + 0.8 * fresh ** 1.4;
        ctx.strokeStyle = colour.water;
        bar(angle, base, base + room * (long + crest));
      }
    }
    ctx.globalAlpha = 1;
  };

  const drawWindow = ({ c, base }) => {
    const head = slots.last - slots.sinks;
    if (head < 0) return;
    const seen = Math.min(head + 1, slots.window, slots.ring);
    const end = angleOf(head % slots.ring);
    ctx.strokeStyle = colour.water;
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    ctx.arc(c, c, base - 7, end - ((seen - 0.5) / slots.ring) * TAU, end);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.fillStyle = colour.water;
    ctx.beginPath();
    ctx.arc(c + Math.cos(end) * (base - 7), c + Math.sin(end) * (base - 7), size < 200 ? 2.5 : 3.5, 0, TAU);
    ctx.fill();
  };

  const drawStones = () => {
    ctx.lineWidth = 1.25;
    spots.forEach((spot, i) => {
      const set = slots.index[i] >= 0;
      ctx.beginPath();
      ctx.ellipse(spot.x, spot.y, spot.rx, spot.ry, spot.turn, 0, TAU);
      if (set && !sinksOff) {
        ctx.fillStyle = colour.stone;
        ctx.fill();
      } else {
        ctx.strokeStyle = colour.stone;
        ctx.globalAlpha = sinksOff ? 0.8 : 0.55;
        if (sinksOff) ctx.setLineDash([2, 3]);
        ctx.stroke();
        ctx.setLineDash([]);
        ctx.globalAlpha = 1;
      }
    });
  };

  const drawPicked = ({ outer, base }) => {
    if (picked < 0) return;
    ctx.strokeStyle = colour.ink;
    if (picked < slots.sinks) {
      const spot = spots[picked];
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      ctx.ellipse(spot.x, spot.y, spot.rx + 3, spot.ry + 3, spot.turn, 0, TAU);
      ctx.stroke();
    } else {
      ctx.lineWidth = 2.5;
      bar(angleOf(picked - slots.sinks), base - 3, outer);
    }
  };

  const draw = () => {
    if (!slots || !size) return;
    const parts = shape();
    ctx.clearRect(0, 0, size, size);
    drawBars(parts);
    drawWindow(parts);
    drawStones();
    drawPicked(parts);
  };

  const placeAt = (x, y) => {
    const { c, base } = shape();
    const near = spots.findIndex((s) => Math.hypot(s.x - x, s.y - y) < s.rx + 5);
    if (near >= 0) return near;
    if (Math.hypot(x - c, y - c) < base - 18) return -1;
    const turn = (Math.atan2(y - c, x - c) - TOP + TAU) % TAU;
    return slots.sinks + Math.min(slots.ring - 1, Math.floor((turn / TAU) * slots.ring));
  };

  const pick = (place) => {
    if (!slots || place === picked) return;
    picked = place;
    onPick(place);
  };

  // The arrow keys go along the stream, not along the slots: sinks first, then the oldest still there.
  const step = (by) => {
    if (slots.last < 0) return;
    const first = Math.max(slots.sinks, slots.last - slots.ring + 1);
    const now = picked >= 0 ? slots.index[picked] : slots.last + (by < 0 ? 1 : 0);
    let n = now + by;
    if (n >= slots.sinks && n < first) n = by < 0 ? slots.sinks - 1 : first;
    pick(slots.placeOf(Math.max(0, Math.min(slots.last, n))));
  };

  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    ArrowUp: () => step(10),
    ArrowDown: () => step(-10),
    Home: () => slots.last >= 0 && pick(slots.placeOf(slots.last)),
    End: () => slots.last >= 0 && pick(0),
    Escape: () => pick(-1),
  };

  canvas.addEventListener("pointermove", (e) => slots && pick(placeAt(e.offsetX, e.offsetY)));
  canvas.addEventListener("pointerdown", (e) => slots && pick(placeAt(e.offsetX, e.offsetY)));
  // A finger leaves as it lifts; what it found should stay to be read.
  canvas.addEventListener("pointerleave", (e) => e.pointerType === "mouse" && pick(-1));
  canvas.addEventListener("blur", () => pick(-1));
  canvas.addEventListener("keydown", (e) => {
    const act = slots && keys[e.key];
    if (!act) return;
    e.preventDefault();
    act();
  });

  return {
    draw,
    resize,
    restyle,
    get picked() {
      return picked;
    },
    use(next) {
      slots = next;
      picked = -1;
      onPick(-1);
      resize();
    },
    sinksAway(yes) {
      sinksOff = yes;
    },
  };
};
