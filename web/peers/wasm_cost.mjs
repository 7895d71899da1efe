// What a token costs the host in wasm, measured in two ways. The engine runs in the page (`worker: false`).
//
// - `thread`: processor time of the page's whole main thread, as the browser itself counts it: wasm, the package's
//   JavaScript, the calls to WebGPU, callbacks. Time in which the thread waits or others have the core is not in it.
// - `wasm`: the clock's time inside calls into the module, which are wrapped before the package sees them; the calls to
//   WebGPU that it makes included, the package's own JavaScript not. It also holds the time in which others have the core.
//
// A software GPU would take both cores of a small machine from the page's thread. So it gets one to itself (`apart`),
// where the system can do that.
//
//   node wasm_cost.mjs [--tokens 64] [--out FILE]
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { CACHE } from "../serve.js";
import { GGUF, PACKAGE, visitPage } from "./browser.mjs";
import { apart, serve } from "./host.mjs";

const { values: flags } = parseArgs({
  options: { tokens: { type: "string", default: "64" }, out: { type: "string" } },
});

/** Tokens of the run that stands for what is not a token's. */
const SHORT = 8;

/** Runs in the page, before the package is there. */
function wrapWasm() {
  const clock = { spent: 0, calls: 0, depth: 0 };
  globalThis.wasmClock = clock;
  const timed = (call) =>
    function (...args) {
      if (clock.depth++) {
        try {
          return call.apply(this, args);
        } finally {
          clock.depth -= 1;
        }
      }
      const start = performance.now();
      try {
        return call.apply(this, args);
      } finally {
        clock.spent += performance.now() - start;
        clock.calls += 1;
        clock.depth -= 1;
      }
    };
  for (const name of ["instantiate", "instantiateStreaming"]) {
    const original = WebAssembly[name];
    WebAssembly[name] = async (...args) => {
      const { instance, module } = await original.apply(WebAssembly, args);
      const wrap = ([key, value]) => [key, typeof value === "function" ? timed(value) : value];
      const exports = Object.fromEntries(Object.entries(instance.exports).map(wrap));
      return { instance: { exports }, module };
    };
  }
}

/** Runs in the page. */
async function load(model) {
  const { Engine } = await import("/brooklet/index.js");
  globalThis.engine = await Engine.load({ model, worker: false });
  return { isolated: crossOriginIsolated, adapter: engine.info.adapter }; // else the clock is coarse
}

/** Runs in the page. Milliseconds in wasm, and calls, of each token. */
async function stream({ settings, tokens }) {
  await engine.reset();
  const clock = globalThis.wasmClock;
  const each = [];
  let before = { ...clock };
  for await (const _ of engine.stream("Once upon a time", { ...settings, maxTokens: tokens })) {
    each.push({ ms: clock.spent - before.spent, calls: clock.calls - before.calls });
    before = { ...clock };
  }
  return each;
}

async function measure(page, devtools, settings, tokens) {
  const thread = async () => {
    const { metrics } = await devtools.send("Performance.getMetrics");
    return 1e6 * metrics.find(({ name }) => name === "TaskDuration").value;
  };
  const run = (count) => page.evaluate(stream, { settings, tokens: count });
  // The difference of a long and a short run is of tokens alone.
  const timed = async (count) => {
    const before = await thread();
    const each = await run(count);
    return { each, spent: (await thread()) - before };
  };
  await run(SHORT);
  const [short, long] = [await timed(SHORT), await timed(SHORT + tokens)];
  const each = long.each.slice(SHORT);
  const sorted = each.map(({ ms }) => 1000 * ms).sort((a, b) => a - b);
  const at = (part) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]);
  const calls = each.reduce((sum, token) => sum + token.calls, 0) / each.length;
  return {
    tokens: each.length,
    thread: Math.round((long.spent - short.spent) / tokens),
    wasm: { p10: at(0.1), median: at(0.5), p90: at(0.9), callsPerToken: Number(calls.toFixed(1)) },
  };
}

const server = await serve({ "/brooklet/": PACKAGE, "/gguf/": CACHE });
try {
  const result = await visitPage(async (page, context, profile) => {
    await page.addInitScript(wrapWasm);
    await page.goto(server.origin);
    const devtools = await context.newCDPSession(page);
    await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
    const where = await page.evaluate(load, `/gguf/${GGUF}`);
    where.apart = apart(profile);
    const tokens = Number(flags.tokens);
    const greedy = await measure(page, devtools, { temperature: 0 }, tokens);
    const sampled = await measure(page, devtools, { temperature: 0.8, topK: 40, seed: 1 }, tokens);
    return { ...where, greedy, sampled };
  });
  const report = JSON.stringify({ unit: "microseconds a token", model: GGUF, ...result }, null, 2) + "\n";
  if (flags.out) writeFileSync(flags.out, report);
  process.stdout.write(report);
} finally {
  server.close();
}
