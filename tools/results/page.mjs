// Writes docs/results/README.md from the measurements beside it: node page.mjs FOLDER
// What was not measured is said, never made up.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

const folder = process.argv[2];
const published = JSON.parse(readFileSync(path.join(import.meta.dirname, "published.json"), "utf8"));

/** A measurement, if it was made. */
function read(name) {
  const file = path.join(folder, "data", `${name}.json`);
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
}

const missing = (part) => `*Not measured yet: \`./build.sh results ${part}\`.*`;
const number = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "");
const percent = (value) =>
  `${(100 * value)
    .toFixed(2)
    .replace(/^-(?=0\.00$)/, "")
    .replace(/^(?=\d)/, "+")} %`;
const row = (cells) => `| ${cells.join(" | ")} |`;
const table = (head, rows) => [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");
const picture = (file, text) => (existsSync(path.join(folder, file)) ? `\n![${text}](${file})\n` : "");
const label = ({ policy, sinks, window }) => `${policy} ${sinks} + ${window}`;

/** What was run, on what. */
function subject(report) {
  const model = path.basename(report.model);
  return `${model} on ${report.adapter} (${report.driver}), brooklet ${report.engine}`;
}

function perplexity() {
  const reports = ["streaming", "window", "dense"].map(read);
  const runs = reports.flatMap((report) => report?.runs ?? []);
  if (!runs.length) return missing("streaming windows");
  const halves = ["f16", "book"].flatMap((name) => read(name)?.runs ?? []);
  const half = new Map(halves.map((run) => [label(run), run]));
  const rows = [];
  const off = [];
  for (const [name, theirs] of Object.entries(published.pytorch)) {
    const run = runs.find((run) => label(run) === name);
    if (!run) continue;
    const of = ({ ranges }, range) => ranges.find(({ from, to }) => `${from}-${to}` === range)?.ppl;
    const cells = published.ranges.map((range, i) => {
      const ours = of(run, range);
      if (theirs[i] === null || ours === undefined) return "";
      off.push(Math.abs(ours / theirs[i] - 1));
      return `${number(ours)} (${percent(ours / theirs[i] - 1)})`;
    });
    rows.push([name, "f32", ...cells]);
    rows.push(["", "PyTorch", ...theirs.map((value) => (value === null ? "" : number(value)))]);
    const f16 = half.get(name);
    if (f16) rows.push(["", "f16", ...published.ranges.map((range) => number(of(f16, range)))]);
  }
  const worst = percent(Math.max(0, ...off));
  return `${table(["cache", "K and V", ...published.ranges], rows)}

The largest difference from PyTorch in ${off.length} cells is ${worst.slice(1)}. In brackets: ours against theirs. ${subject(reports.find(Boolean))}.

${policies()}`;
}

/** One text through every policy. */
function policies() {
  const report = read("policies");
  if (!report) return missing("policies");
  const tokens = report.runs[0].tokens.toLocaleString("en");
  const each = report.runs.map((run) => `${label(run)}: ${number(run.ppl)}`);
  return `${tokens} tokens, K and V as ${report.runs[0].kv}: ${each.join(", ")}. Half-discard is llama.cpp's context shift.
${picture("policies.svg", "Running perplexity of streaming, window, dense and half-discard")}`;
}

/** Where streaming begins to differ from dense: the likelihood at index i is what the tokens before it gave. */
function difference() {
  const report = read("difference");
  if (!report) return missing("difference");
  const { sinks, window } = report.runs.find(({ policy }) => policy === "streaming");
  const nll = {};
  const [, ...lines] = readFileSync(path.join(folder, "data", "difference.csv"), "utf8")
    .trim()
    .split("\n");
  for (const [policy, , , index, , value] of lines.map((line) => line.split(","))) (nll[policy] ??= {})[index] = value;
  const { streaming, dense } = nll;
  const first = Object.keys(streaming)
    .map(Number)
    .find((index) => streaming[index] !== dense[index]);
  return `Until the window is full, streaming and dense are bit-identical (logits by the test \`invariants\`). The first token to be fed with a key out of sight is number
\`S + W\`, counted from 0. With ${sinks} + ${window} the likelihoods of the book's tokens are the same to the last digit up to number ${first - 1}, and differ
from ${first} on, which is foretold from token ${first - 1}: ${first - 1 === sinks + window ? "`S + W`, as it must be" : "**not `S + W`**"}.`;
}

function sinks() {
  const report = read("sinks");
  if (!report) return missing("sinks");
  const ours = report.runs.map(({ ppl }) => number(ppl));
  const { table2, figure1 } = published.paper;
  const tokens = report.runs[0].tokens.toLocaleString("en");
  const rows = [[`**SmolLM2-135M, cache of 257, ${tokens} tokens**`, ...ours]];
  for (const [model, figures] of Object.entries(table2)) rows.push([`${model} (the paper)`, ...figures]);
  const newlines = read("newlines")?.runs[0].ppl;
  const four = report.runs.find(({ sinks }) => sinks === 4)?.ppl;
  const change = newlines ? percent(newlines / four - 1) : "";
  const said = newlines
    ? `Four newline tokens put before the text, which then serve as the sinks: ${number(newlines)}, against ${number(four)} with the text's own first
four (${change}). The paper: ${figure1.newlines} against ${figure1.streaming} (${percent(figure1.newlines / figure1.streaming - 1)}). What a sink says hardly matters; that it is the first does.`
    : missing("sinks");
  return `${table(["sinks", ...report.runs.map(({ sinks }) => sinks)], rows)}
${picture("sinks.svg", "Running perplexity with 0, 1, 2, 4 and 8 sinks")}
${said}`;
}

/** A small model of MPT's kind, which tools/results/alibi.py trains. */
function alibi() {
  const [report, model] = ["alibi", "alibi-model"].map(read);
  if (!report || !model) return missing("alibi");
  const spans = report.runs[0].ranges.map(({ from, to }) => `${from}-${to}`);
  const of = ({ ranges }, span) => ranges.find(({ from, to }) => `${from}-${to}` === span)?.ppl;
  const rows = report.runs.map((run) => [label(run), ...spans.map((span) => number(of(run, span), 3))]);
  const streams = report.runs.filter(({ policy }) => policy === "streaming");
  const dense = report.runs.find(({ policy }) => policy === "dense");
  const [none, four] = [0, 4].map((count) => streams.find((run) => run.sinks === count));
  const cost = of(none, spans.at(-1)) / of(four, spans.at(-1)) - 1;
  const beside = percent(of(four, spans[1]) / of(dense, spans[1]) - 1);
  const shares = model.first.map((share) => `${number(100 * share)} %`).join(", ");
  const [{ sinks, window, tokens: measured }] = streams;
  const windows = Math.floor(measured / (sinks + window));
  const worst = (checks) => Math.max(...checks.map(({ difference }) => difference)).toExponential(1);
  const [{ tokens }] = model.streams;
  const theirs = published.paper.table2["MPT-7B"];
  const said =
    Math.abs(cost) < 0.02
      ? `So small a model has no sink, and the picture cannot show what one is good for: none in place of 4 changes the last range by ${percent(cost)}. In the second
half of a context its layers give the first token ${shares} of their attention. What is shown is that ALiBi streams`
      : `No sinks in place of 4 change the last range by ${percent(cost)}. In the second half of a context the layers give the first token ${shares} of
their attention. With sinks, ALiBi streams`;
  return `The paper's model with ALiBi is MPT-7B: ${theirs[0]} without sinks, ${theirs[1]} with 1, ${theirs[3]} with 4. Ours is a model of its kind in small, trained by
\`tools/results/alibi.py\`: ${model.layers} layers, ${model.dim} wide, ${model.heads} heads, ${number(model.parameters / 1e6)} million parameters; a token is a byte. It learned in ${model.steps.toLocaleString("en")} steps and contexts of ${model.context}
from the first ${number(model.text / 1000, 0)} kB of the book, about ${number(model.learnt / model.text, 0)} times over. It is measured on the rest, where the frequency of each byte alone gives a
perplexity of ${number(model.unigram, 1)}, and the model in contexts of ${model.context} one of ${number(model.contexts)}.

${table(["cache", ...spans], rows)}
${picture("alibi.svg", "Running perplexity of a model with ALiBi: streaming with 0, 1 and 4 sinks, and dense")}
${said}: through ${windows} windows, and with 4 sinks ${beside} from dense over ${spans[1]}.

The same weights in PyTorch, in float64: logits differ by ${worst([model.dense])} at most in a dense cache over ${model.dense.tokens} tokens, and by ${worst(model.streams)} over the first ${tokens} tokens of the
three streams, whose keys are the paper's there (the first tokens and the last, distances counted within the cache); ${model.allowed} is allowed. With distances as in
the text they would differ by ${number(model.uncached)}. Made by \`./build.sh results alibi\`, which needs PyTorch. ${subject(report)}.`;
}

function recompute() {
  const reports = Object.entries(published.pytorchRecompute)
    .map(([window, theirs]) => ({ window, theirs, report: read(`recompute-${window}`) }))
    .filter(({ report }) => report);
  if (!reports.length) return missing("recompute");
  const rows = reports.map(({ window, theirs, report }) => {
    const of = (policy) => report.runs.find((run) => run.policy === policy);
    const [again, stream] = [of("recompute"), of("streaming")];
    return [window, again.tokens, number(again.ppl), number(stream.sample_ppl), `${theirs[0]} / ${theirs[1]}`];
  });
  const positions = new Set(reports.flatMap(({ report }) => report.sample));
  const which = [...positions].sort((a, b) => a - b).map((n) => n.toLocaleString("en"));
  const head = ["window", "positions", "recompute", "streaming", "PyTorch, at other positions"];
  return `${table(head, rows)}

Both at the same positions: tokens ${which.join("; ")}. Few of them, so the level is rough; what counts is that the two columns are close. The paper: 5.43 and 5.40.`;
}

function book() {
  const report = read("book");
  if (!report) return missing("book");
  const [run] = report.runs;
  return `${run.tokens.toLocaleString("en")} tokens, cache ${run.sinks} + ${run.window}, K and V as ${run.kv}: perplexity ${number(run.ppl)}.
${picture("book.svg", "Running perplexity over the whole book: level from beginning to end")}`;
}

/** b of y = a x^b by least squares over logarithms. */
function exponent(points) {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)]);
  const mean = (i) => logs.reduce((sum, point) => sum + point[i], 0) / logs.length;
  const [mx, my] = [mean(0), mean(1)];
  const over = logs.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0);
  return over / logs.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
}

function latency() {
  const report = read("latency");
  if (!report) return missing("latency");
  const of = (policy) => report.cells.filter((cell) => cell.policy === policy);
  const time = (cell) => (cell.full ?? cell.all).p50;
  const [again, stream] = [of("recompute"), of("streaming")];
  const { figure10 } = published.paper;
  const rows = stream.map((cell, i) => {
    const slow = again.find(({ cache }) => cache === cell.cache);
    const at = figure10.caches.indexOf(cell.cache);
    const paper = ["Llama-2-7B", "Llama-2-13B"].map((model) => {
      const { recompute, streaming } = figure10[model];
      return at < 0 ? "" : `${recompute[at]} / ${streaming[at]} = ${number(recompute[at] / streaming[at], 1)}`;
    });
    const ratio = slow ? number(time(slow) / time(cell), 1) : "";
    return [cell.cache, slow ? number(time(slow), 0) : "", number(time(cell), 1), ratio, ...paper];
  });
  const slope = (cells) => number(exponent(cells.map((cell) => [cell.cache, time(cell)])), 2);
  const theirs = (policy) => {
    const figures = figure10["Llama-2-7B"][policy];
    return number(exponent(figure10.caches.map((cache, i) => [cache, figures[i]])), 2);
  };
  const head = ["cache", "recompute, ms", "streaming, ms", "ratio", "the paper, 7B, ms", "the paper, 13B, ms"];
  return `${table(head, rows)}

Milliseconds a token once the cache is full, medians. As a power of the cache's size, recompute grows with exponent ${slope(again)} and streaming with ${slope(stream)}
(the paper's 7B: ${theirs("recompute")} and ${theirs("streaming")}). The ratios are larger than the paper's: a GPU goes over a window at once, for little more than it takes to
read the weights; two cores of a CPU, which a software driver runs on, take their time for every token of it. ${subject(report)}.
${picture("latency.svg", "Time per token against the size of the cache")}`;
}

function laps() {
  const report = read("laps");
  if (!report) return missing("laps");
  const rows = report.cells.map(({ policy, cache, full }) => {
    const ratio = (value) => number(value / full.p50);
    const times = [full.p50, full.p99, full.max].map((ms) => number(ms));
    return [policy, cache, full.tokens, ...times, ratio(full.p99), ratio(full.max)];
  });
  const head = ["policy", "cache", "tokens", "p50, ms", "p99, ms", "max, ms", "p99 / p50", "max / p50"];
  const waits = report.cells
    .filter(({ shifts }) => shifts)
    .map(({ shifts }) => `${shifts.tokens} tokens waited for that, and took ${number(shifts.p50)} ms in the median`);
  return `${table(head, rows)}

Every token from the one that filled the cache, three laps of the ring. Half-discard, which is llama.cpp's context shift, stops to throw half of its
cache away and turn the rest${waits.length ? `: ${waits}` : ""}. With a model as small as this that is little beside a token.
lavapipe with one thread (\`LP_NUM_THREADS=1\`), so that a core is left to everything else; what is left of ups and downs is the machine's. ${subject(report)}.
${picture("laps.svg", "Time of each token over the run")}`;
}

function soak() {
  const run = read("soak");
  if (!run) return missing("soak");
  const mib = (bytes) => number(bytes / 2 ** 20);
  const { tenths, difference, tolerance, latency_ratio: ratio } = run.report;
  const rows = tenths.map(({ tenth, ms, gpu, host }) => [tenth, number(ms, 3), gpu.toLocaleString("en"), mib(host)]);
  const verdict = (held) => (held ? "yes" : "**no**");
  const times = tenths.map(({ ms }) => ms);
  const range = `the tenths lie between ${number(Math.min(...times), 3)} and ${number(Math.max(...times), 3)} ms`;
  return `${run.tokens.toLocaleString("en")} tokens of a tiny random model, cache ${run.sinks} + ${run.window}, ${run.looks} looks.

${table(["tenth", "ms a token, median", "GPU, bytes", "host, MiB"], rows)}

GPU memory flat to the byte: ${verdict(run.gpu_flat)}. Host within 1 MiB from the second tenth on: ${verdict(run.host_flat)}. Last tenth within 5 % of the second:
${verdict(run.latency_flat)} (${number(ratio, 3)}; ${range}). Equal to the paper's method in f64 throughout: ${verdict(run.oracle_equal)} (largest difference of a logit ${difference.toExponential(1)}, allowed ${tolerance}).`;
}

function recall() {
  const report = read("streameval");
  if (!report) return missing("streameval");
  const head = Object.keys(report.distances[0]).filter((key) => key !== "questions");
  const shown = (value) => (typeof value === "number" && !Number.isInteger(value) ? number(value, 3) : value);
  const rows = report.distances.map((entry) => head.map((key) => shown(entry[key])));
  const { accuracy, cache } = published.paper.table7;
  const theirs = Object.entries(accuracy).map(([tokens, right]) => `${right} % at ${tokens} tokens`);
  return `${table(
    head.map((key) => key.replaceAll("_", " ")),
    rows,
  )}

The paper, Llama-2-7B-32K with a cache of ${cache}: ${theirs.join(", ")}. What has left the window is forgotten: beyond it, nothing can be right but by chance.`;
}

function attention() {
  const report = read("sinkscan");
  if (!report) return missing("sinkscan");
  const shares = report.by_token.map((share) => `${number(100 * share)} %`);
  const [first, ...others] = report.by_token;
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const layers = report.shares.map((heads) => mean(heads.map(([share]) => share)));
  const draws = (share) => share >= 0.15;
  const [drawn, quiet] = [layers.filter(draws), layers.filter((share) => !draws(share))];
  const part = (shares) => number(100 * mean(shares), 0);
  const most = number(100 * Math.max(...others));
  return `${table(["token", ...shares.map((_, i) => i)], [["share of attention", ...shares]])}

Mean over all layers and heads and ${report.queries} queries; a token's fair share is ${number(100 * report.fair)} %. Recommended: ${report.sinks} sink${report.sinks === 1 ? "" : "s"}.

The very first token draws ${number(100 * first, 0)} % of all attention, ${number(first / report.fair, 0)} times its share, and no other token more than ${most} %: this model has one sink, and the table of sinks above
says the same. It forms on the way up: in ${quiet.length} of ${layers.length} layers the first token gets ${part(quiet)} % on average, in the other ${drawn.length}, which begin at layer ${layers.findIndex(draws)}, ${part(drawn)} %.
${picture("attention.svg", "Share of attention on the first four tokens, by layer and head")}`;
}

const sections = { perplexity, difference, sinks, alibi, recompute, book, latency, laps, soak, recall, attention };
let text = readFileSync(path.join(import.meta.dirname, "page.md"), "utf8");
for (const [name, section] of Object.entries(sections)) text = text.replace(`{{${name}}}`, () => section());
const left = /\{\{(\w+)\}\}/.exec(text);
if (left) throw new Error(`page.md asks for ${left[1]}, and there is no such section`);
writeFileSync(path.join(folder, "README.md"), text);
