// Draws anew whenever the canvases' size or the colours around them change.

export const watchLook = ({ drawn, docks, drawAll }) => {
  const restyle = () => {
    for (const picture of drawn) picture.restyle();
    drawAll();
  };
  restyle();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  const sizes = new ResizeObserver(() => {
    for (const picture of drawn) picture.resize();
    drawAll();
  });
  for (const canvas of document.querySelectorAll("canvas")) sizes.observe(canvas);
  const heights = new ResizeObserver((entries) => {
    // The dock of the way that is not shown has no height.
    const shown = entries.find(({ target }) => target.offsetHeight > 0);
    if (shown) document.documentElement.style.setProperty("--dock", `${shown.target.offsetHeight}px`);
  });
  for (const dock of docks) heights.observe(dock);
};
