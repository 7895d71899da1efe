// Measures in-browser text generation engines on one model.
//
//   ./build.sh web                     brooklet's package
//   npm ci --ignore-scripts            the other engines (in this folder)
//   python make_model.py               their model files, into the cache folder
//   node peers.mjs [--only NAME,NAME] [--out FILE] [--patience SECONDS]
import { existsSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { CACHE } from "../serve.js";
import { GGUF, PACKAGE, visitPage } from "./browser.mjs";
import { engines } from "./engines.mjs";
import { browserTree, cpuMeter, memory, peakPss, quiet, serve } from "./host.mjs";

const HERE = import.meta.dirname;
const MODELS = path.join(CACHE, "peers");
const PROMPT = "Once upon a time";
// As long as PROMPT in tokens but with no common start: it warms the same
// shaders without leaving a prefix for a prompt cache to find.
const WARM_UP = "A dog ran home";
const BUDGET_MS = 90_000;
const CAP_MS = 600_000;
const { values: flags } = parseArgs({
  options: {
    only: { type: "string" },
    out: { type: "string" },
    patience: { type: "string", default: "300" },
  },
});

const median = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const round = (n, digits = 1) => Number(n.toFixed(digits));

/** Tokens/s in consecutive windows, at least five of them to a run. */
function windows({ times, tokens }) {
  const steps = times.length - 1;
  const size = Math.max(1, Math.min(8, Math.floor(steps / 5)));
  // An engine may hold back half a character: a piece is then more than a token.
  const perPiece = (tokens ?? times.length) / times.length;
  return Array.from({ length: Math.floor(steps / size) }, (_, i) => {
    const ms = times[(i + 1) * size] - times[i * size];
    return (1000 * size * perPiece) / ms;
  });
}

async function runInPage({ prompt, maxTokens }) {
  const times = [];
  const start = performance.now();
  const onPiece = () => times.push(performance.now() - start);
  const result = await globalThis.engine.generate(prompt, maxTokens, onPiece);
  return { ...result, times, totalMs: performance.now() - start };
}

async function measure(entry, page, profile, server) {
  const generate = (prompt, maxTokens) => page.evaluate(runInPage, { prompt, maxTokens });
  const start = performance.now();
  const { info, adapter } = await page.evaluate(`(async () => {
    globalThis.engine = await (${entry.setup})(${JSON.stringify(entry.options)});
    const adapter = (await navigator.gpu?.requestAdapter())?.info;
    return { info: engine.info, adapter: adapter && adapter.vendor + " " + adapter.architecture };
  })()`);
  const loadMs = performance.now() - start;
  const rssAfterLoad = memory(profile, "status", "VmHWM");

  const first = await generate(WARM_UP, 2);
  const pace = await generate(WARM_UP, 4);
  const perToken = (pace.times.at(-1) - pace.times[0]) / (pace.times.length - 1);
  const maxTokens = Math.round(Math.min(64, Math.max(16, BUDGET_MS / perToken)));
  const repeats = perToken * maxTokens < 20_000 ? 3 : 1;

  const load1Before = loadavg()[0];
  const stop = cpuMeter(profile);
  const firsts = [];
  for (let i = 0; i < 3; i++) firsts.push((await generate(PROMPT, 1)).times[0]);
  const runs = [];
  for (let i = 0; i < repeats; i++) runs.push(await generate(PROMPT, maxTokens));
  const cpu = stop();
  const load1After = loadavg()[0];

  // A pass of its own, since reading PSS takes time from the two cores.
  const peak = await peakPss(profile, () => generate(PROMPT, perToken > 1000 ? 4 : 32));
  const rates = runs.flatMap(windows);
  return {
    info,
    adapter,
    tokens: runs.map((run) => run.tokens ?? run.times.length),
    tokensPerSecond: round(median(rates), 2),
    windows: rates.map((rate) => round(rate, 2)),
    ownTokensPerSecond: runs[0].own?.predicted_per_second,
    firstTokenMs: round(median(firsts)),
    coldFirstTokenMs: round(first.times[0]),
    loadMs: Math.round(loadMs),
    ...server.transferred(),
    peakPssGenerating: peak,
    peakRssLoading: rssAfterLoad,
    processes: browserTree(profile).length,
    cpuCores: cpu,
    load1: { before: round(load1Before, 2), after: round(load1After, 2) },
    text: runs[0].text,
    firstIds: runs[0].ids?.slice(0, 32),
  };
}

async function visit(entry, server) {
  const { name, engine, version, backend } = entry;
  const quietness = await quiet(Number(flags.patience) * 1000);
  const messages = [];
  let timer;
  const base = { name, engine, version, backend, before: quietness };
  try {
    return await visitPage(async (page, context, profile) => {
      page.on("console", (message) => {
        if (["warning", "error"].includes(message.type())) messages.push(message.text());
      });
      server.forget();
      await page.goto(server.origin);
      const cap = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`over ${CAP_MS} ms`)), CAP_MS);
      });
      const result = await Promise.race([measure(entry, page, profile, server), cap]);
      return { ...base, chromium: context.browser()?.version(), ...result, messages: messages.slice(0, 5) };
    });
  } catch (error) {
    return { ...base, error: String(error), messages: messages.slice(0, 10) };
  } finally {
    clearTimeout(timer);
  }
}

const mounts = {
  "/node_modules/": path.join(HERE, "node_modules"),
  "/gguf/": CACHE,
  "/models/": MODELS,
  "/brooklet/": PACKAGE,
};
const server = await serve(mounts);
const chosen = flags.only?.split(",");
const results = [];
const report = () => JSON.stringify({ prompt: PROMPT, model: GGUF, results }, null, 2) + "\n";
for (const entry of engines.filter(({ name }) => !chosen || chosen.includes(name))) {
  console.error(entry.name);
  if (entry.engine === "transformers.js" && !existsSync(path.join(MODELS, "smollm2"))) {
    console.error(`left out: its model files are not in ${MODELS}; make_model.py makes them`);
    continue;
  }
  results.push(await visit(entry, server));
  // Written after each engine, so that a broken run leaves what it had.
  if (flags.out) writeFileSync(flags.out, report());
}
if (!flags.out) process.stdout.write(report());
else {
  console.log(`${GGUF}, "${PROMPT}", medians`);
  for (const { name, backend, tokensPerSecond, firstTokenMs, error } of results) {
    const figures = error ?? `${tokensPerSecond} tokens/s, first token after ${firstTokenMs} ms`;
    console.log(`${name.padEnd(16)} ${backend.padEnd(20)} ${figures}`);
  }
}
server.close();
