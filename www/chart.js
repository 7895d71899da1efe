// Tokens per second over time. History is bounded: when it is full, neighbours are merged and each
// sample stands for twice the time.

const FULL = 240;

export const createHistory = (step = 500) => {
  let samples = [];
  let width = step;
  let tokens = 0;
  let began = -1;

  return {
    get samples() {
      return samples;
    },
    get duration() {
      return samples.length * width;
    },
    add(n) {
      tokens += n;
    },
    /** Closes what is due; true when there is something new to draw. A gap of paused time is skipped. */
    tick(now) {
      if (began < 0) began = now;
      if (now - began < width) return false;
      samples.push((tokens * 1000) / (now - began));
      tokens = 0;
      began = now;
      if (samples.length >= FULL) {
        samples = samples.flatMap((v, i) => (i % 2 ? [(samples[i - 1] + v) / 2] : []));
        width *= 2;
      }
      return true;
    },
    /** The mean of the last samples; undefined while there are too few. */
    recent() {
      const last = samples.slice(-4);
      return last.length > 1 ? last.reduce((a, b) => a + b, 0) / last.length : undefined;
    },
    /** Time that must not count. */
    rest() {
      began = -1;
      tokens = 0;
    },
    clear() {
      samples = [];
      width = step;
      this.rest();
    },
  };
};

const niceTop = (max) => {
  const scale = 10 ** Math.floor(Math.log10(Math.max(max, 1)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((k) => k * scale).find((v) => v >= max * 1.12) ?? scale * 15;
};

export const createChart = (canvas, history) => {
  const ctx = canvas.getContext("2d");
  let colour = {};
  let font = "12px system-ui";
  let w = 0;
  let h = 0;

  const restyle = () => {
    const style = getComputedStyle(canvas);
    colour = Object.fromEntries(["water", "rule", "muted"].map((k) => [k, style.getPropertyValue(`--${k}`).trim()]));
    font = `12px ${style.fontFamily}`;
  };

  const resize = () => {
    w = canvas.clientWidth;
    h = canvas.clientHeight;
    const ratio = Math.min(devicePixelRatio || 1, 3);
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  };

  const line = (y) => {
    ctx.beginPath();
    ctx.moveTo(0, y);
    ctx.lineTo(w, y);
    ctx.stroke();
  };

  const draw = (label) => {
    const { samples } = history;
    canvas.hidden = samples.length < 2; // its size is told anew when it is shown
    if (!w || canvas.hidden) return;
    const top = niceTop(Math.max(0, ...samples));
    const floor = h - 20.5;
    const ceiling = 18.5;
    const y = (v) => floor - (v / top) * (floor - ceiling);
    ctx.clearRect(0, 0, w, h);
    ctx.strokeStyle = colour.rule;
    ctx.lineWidth = 1;
    line(floor);
    line(ceiling);
    ctx.font = font;
    ctx.fillStyle = colour.muted;
    ctx.textBaseline = "alphabetic";
    ctx.fillText(String(top), 0, ceiling - 5);
    ctx.fillText("0", 0, h - 5);
    const right = ctx.measureText(label).width;
    ctx.fillText(label, w - right, h - 5);
    // It fills the width from the start, so that a young stream is not a dot in a corner.
    const x = (i) => (i / (samples.length - 1)) * w;
    ctx.beginPath();
    samples.forEach((v, i) => ctx.lineTo(x(i), y(v)));
    ctx.strokeStyle = colour.water;
    ctx.lineWidth = 1.5;
    ctx.lineJoin = "round";
    ctx.stroke();
    ctx.lineTo(w, floor);
    ctx.lineTo(0, floor);
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = colour.water;
    ctx.fill();
    ctx.globalAlpha = 1;
  };

  return { draw, resize, restyle };
};
