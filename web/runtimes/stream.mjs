// Streams greedily with the package outside a browser, in one thread, and says in JSON what came. Node (with Dawn) and
// Deno run it: `stream.mjs '{"assets": URL, "model": URL, "prompt": TEXT, "tokens": N, "repeat": N}'`.
import process from "node:process";
import "./webgpu.mjs";

const { assets, model, prompt, tokens, repeat = 1 } = JSON.parse(process.argv[2]);

const { Engine } = await import("../pkg/index.js");
const warnings = [];
const engine = await Engine.load({
  model,
  assets,
  worker: false,
  cache: false,
  tune: "off",
  onWarning: (warning) => warnings.push(warning),
});
const runs = [];
for (let run = 0; run < repeat; run += 1) {
  await engine.reset();
  const stream = engine.stream(prompt, { temperature: 0, maxTokens: tokens });
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  runs.push({
    tokens: pieces.map(({ token }) => token),
    text: pieces.map(({ text }) => text).join(""),
    rate: stream.stats.decodeTps,
  });
}
const { info } = engine;
await engine.unload();
console.log(JSON.stringify({ runs, warnings, info }));
process.exit(0); // Dawn's threads would keep Node
