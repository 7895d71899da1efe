// A scroller that stays at its newest line, until a reader scrolls up.

export const createFollow = ({ scroller, newest, still }) => {
  let stuck = true;
  let gliding = false;
  let expected = 0;

  const bottom = () => scroller.scrollHeight - scroller.clientHeight;

  const jump = () => {
    expected = scroller.scrollTop = bottom();
  };

  scroller.addEventListener(
    "scroll",
    () => {
      const at = scroller.scrollTop;
      if (bottom() - at < 24) stuck = true;
      else if (at < expected - 2) stuck = false;
      expected = at;
      newest.hidden = stuck;
    },
    { passive: true },
  );

  // A card or the dock takes room from the text: the newest line stays in view.
  new ResizeObserver(() => stuck && jump()).observe(scroller);

  const stick = () => {
    stuck = true;
    newest.hidden = true;
    jump();
  };

  newest.addEventListener("click", () => {
    stick();
    scroller.focus({ preventScroll: true });
  });

  return {
    stick,
    get stuck() {
      return stuck;
    },
    get gliding() {
      return gliding;
    },
    /** One step towards the newest line: it glides, but never falls more than some lines behind. */
    step() {
      if (!stuck) return;
      const gap = bottom() - scroller.scrollTop;
      gliding = gap > 1;
      if (!gliding) return;
      const step = still() || gap > 400 ? gap : Math.max(1, gap * 0.18);
      expected = scroller.scrollTop = scroller.scrollTop + step;
    },
    /** What is read stays where it is when so many pixels above it go, or come where the number is negative. */
    shift(height) {
      expected = scroller.scrollTop = Math.max(0, scroller.scrollTop - height);
    },
    /** There is nothing to follow: its beginning is shown. */
    rest() {
      stuck = false;
      gliding = false;
      newest.hidden = true;
      scroller.scrollTop = 0;
    },
    clear() {
      stuck = true;
      gliding = false;
      newest.hidden = true;
      expected = 0;
    },
  };
};
