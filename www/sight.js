// What the model sees of the conversation, and how fast it speaks: the meter and the figures, drawn once a frame at most.

import { labelMeter, showFigures, showPicked, showWindow } from "./chatview.js";
import { createMeter } from "./meter.js";
import { chartLabel, labelChart, showInfo } from "./view.js";

const FIGURES_MS = 250;
const LABELS_MS = 5000;
const NOW = { figures: -Infinity, labels: -Infinity }; // due at the next frame

/** `said` and `info` tell the messages and the engine of the moment; `busy` whether it speaks. */
export const createSight = ({ canvas, chartCanvas, figures: { history, chart }, messages, said, info, busy }) => {
  let stats = null;
  let window = null;
  let base = 0; // messages that were before those of the window
  let counted = 0; // tokens of this answer that are in the chart
  let queued = false;
  let dirty = false;
  let shownAt = { ...NOW };

  const meter = createMeter(canvas, {
    onPick: (message) => showPicked(message, { window, base }, said()),
    onOpen: (message) => messages.open(message + base),
  });

  const frame = (now) => {
    queued = false;
    messages.frame(now);
    if (dirty) {
      dirty = false;
      meter.draw();
      chart.draw(chartLabel(history));
    }
    if (now - shownAt.figures >= FIGURES_MS) {
      shownAt.figures = now;
      showFigures(stats, history.recent());
      if (info()) showInfo(info());
    }
    if (now - shownAt.labels >= LABELS_MS) {
      shownAt.labels = now;
      labelMeter(canvas, window);
      labelChart(chartCanvas, history);
    }
    if (messages.busy || dirty || busy()) request();
  };

  const request = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(frame);
  };

  const take = (next, before) => {
    window = next;
    base = before;
    meter.use(window);
    messages.mark(window, base);
    showWindow(window);
    dirty = true;
    request();
  };

  return {
    meter,
    request,
    /** Null before the model has been told anything. */
    show(next, before = 0) {
      take(next, before);
      shownAt = { ...NOW };
    },
    /** An answer begins. */
    begin() {
      stats = null;
      counted = 0;
    },
    /** One more piece of it. */
    count(now, before) {
      stats = now;
      history.add(now.generatedTokens - counted);
      counted = now.generatedTokens;
      history.tick(performance.now());
      // Figures and labels keep their pace.
      if (now.window && now.window !== window) take(now.window, before);
      dirty = true;
      request();
    },
    end(last, before) {
      stats = last;
      if (last.window) this.show(last.window, before);
    },
    /** Time that must not count, between one state and the next. */
    rest() {
      history.rest();
      this.redraw();
    },
    redraw() {
      dirty = true;
      shownAt.figures = NOW.figures;
      request();
    },
  };
};
