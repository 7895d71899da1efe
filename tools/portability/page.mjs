// The table of docs/portability.md: by family of kernels and platform, how far they were taken there.
const FORMAT = /_(f32|f16|bf16|i?q\d_[01k]|iq4_nl|iq4_xs|mxfp4|tq\d_0)(?=_|$)/;
const [BEGIN, END] = ["<!-- table: tools/portability/run.sh -->", "<!-- end of table -->"];

/** A kernel's name without the type of its weights. */
export const family = (name) => name.replace(FORMAT, "");

/** The furthest each of the keys was taken on a platform, counted; nothing where none was. */
function cell(keys, { ran = [], compiled = [], translated = [], refused = {} }) {
  const left = new Set(keys);
  const words = [];
  for (const [word, list] of [
    ["refused", Object.keys(refused)],
    ["run", ran],
    ["compiled", compiled],
    ["translated", translated],
  ]) {
    const count = list.filter((key) => left.delete(key)).length;
    if (count) words.push(word === "refused" ? `**${word} ${count}**` : `${word} ${count}`);
  }
  return words.join(", ") || "–";
}

const row = (cells) => `| ${cells.join(" | ")} |`;

/** What `platforms` have made of `kernels`. */
export function table(kernels, platforms) {
  const families = new Map();
  for (const kernel of kernels) {
    const name = family(kernel.name);
    families.set(name, [...(families.get(name) ?? []), kernel]);
  }
  const names = Object.keys(platforms);
  const all = { "**all**": kernels };
  const lines = [
    row(["kernels", "sources", "with overrides", ...names]),
    row(["---", "--:", "--:", ...names.map(() => "---")]),
    ...[...Object.entries(all), ...[...families].sort()].map(([name, list]) => {
      const keys = list.map(({ key }) => key);
      const sources = new Set(list.map((kernel) => kernel.name)).size;
      return row([name, sources, keys.length, ...names.map((platform) => cell(keys, platforms[platform]))]);
    }),
  ];
  return lines.join("\n");
}

/** The page with another table. */
export function written(page, found) {
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`the page has no ${BEGIN} … ${END}`);
  return [before, BEGIN, "\n\n", found, "\n\n", END, after].join("");
}
