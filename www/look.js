// Draws anew whenever the canvases' size or the colours around them change.

export const watchLook = ({ ring, chart, dock, drawAll }) => {
  const restyle = () => {
    ring.restyle();
    chart.restyle();
    drawAll();
  };
  restyle();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  const sizes = new ResizeObserver(() => {
    ring.resize();
    chart.resize();
    drawAll();
  });
  for (const canvas of document.querySelectorAll("canvas")) sizes.observe(canvas);
  new ResizeObserver(([{ target }]) =>
    document.documentElement.style.setProperty("--dock", `${target.offsetHeight}px`),
  ).observe(dock);
};
