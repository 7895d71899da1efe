// What a token costs the host in wasm: the time of everything that runs inside calls into the wasm module, the calls to
// WebGPU that it makes included, and the waiting for the device not. Each export of the module is wrapped before the
// package sees it, and the outermost calls are timed. The engine runs in the page (`worker: false`); the package's own
// JavaScript around those calls is not counted.
//
//   node wasm_cost.mjs [--tokens 64] [--out FILE]
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { CACHE } from "../serve.js";
import { visitPage } from "./browser.mjs";
import { GGUF, PACKAGE } from "./engines.mjs";
import { serve } from "./host.mjs";

const { values: flags } = parseArgs({
  options: { tokens: { type: "string", default: "64" }, out: { type: "string" } },
});

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

/** Runs in the page. Microseconds of each token. */
async function measure({ model, tokens }) {
  const { Engine } = await import("/brooklet/index.js");
  const engine = await Engine.load({ model, worker: false });
  const run = async (settings) => {
    await engine.reset();
    const clock = globalThis.wasmClock;
    const each = [];
    let before;
    for await (const _ of engine.stream("Once upon a time", { ...settings, maxTokens: tokens + 8 })) {
      // The first ones are warming up.
      if (before && each.length < tokens) each.push({ ms: clock.spent - before.spent, calls: clock.calls - before.calls });
      before = { ...clock };
    }
    const sorted = each.slice(8).sort((a, b) => a.ms - b.ms);
    const at = (part) => Math.round(1000 * sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))].ms);
    const calls = sorted.reduce((sum, token) => sum + token.calls, 0) / sorted.length;
    return { tokens: sorted.length, p10: at(0.1), median: at(0.5), p90: at(0.9), callsPerToken: Number(calls.toFixed(1)) };
  };
  return {
    isolated: crossOriginIsolated, // else the clock is coarse
    adapter: engine.info.adapter,
    greedy: await run({ temperature: 0 }),
    sampled: await run({ temperature: 0.8, topK: 40, seed: 1 }),
  };
}

const server = await serve({ "/brooklet/": PACKAGE, "/gguf/": CACHE });
try {
  const result = await visitPage(async (page) => {
    await page.addInitScript(wrapWasm);
    await page.goto(server.origin);
    return page.evaluate(measure, { model: `/gguf/${GGUF}`, tokens: Number(flags.tokens) });
  });
  const report = JSON.stringify({ unit: "microseconds a token inside wasm", model: GGUF, ...result }, null, 2) + "\n";
  if (flags.out) writeFileSync(flags.out, report);
  process.stdout.write(report);
} finally {
  server.close();
}
