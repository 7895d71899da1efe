// Figures as a reader wants them.

const whole = new Intl.NumberFormat("en");

export const count = (n) => whole.format(Math.round(n));

const unitOf = (n) => (n >= 1e10 ? ["GB", 1e9] : ["MB", 1e6]);

const amount = (n, unit) => (n / unit < 9.95 ? (n / unit).toFixed(1) : whole.format(Math.round(n / unit)));

export const bytes = (n) => {
  const [name, unit] = unitOf(n);
  return `${amount(n, unit)} ${name}`;
};

/** "41 of 98 MB" */
export const partOf = (done, total) => {
  if (!(total > 0)) return bytes(done);
  return `${amount(done, unitOf(total)[1]).replace(/\.0$/, "")} of ${bytes(total)}`;
};

export const rate = (n) => (n >= 99.5 ? count(n) : n.toFixed(1));

export const time = (ms) => {
  if (ms < 1000) return `${count(ms)} ms`;
  return ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${count(ms / 1000)} s`;
};

export const span = (ms) => {
  const s = Math.round(ms / 1000);
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${(s / 3600).toFixed(1)} h`;
};

export const words = (text) => text.match(/\S+/g)?.length ?? 0;
