// The same greedy tokens everywhere, and how many a second: `node tools/portability/speed.mjs BINARY [NAME=MANIFEST]…`
// streams the default model and the tiny one natively on the system's Vulkan driver and on those of the manifests, in
// Chromium, in Firefox, in Deno and under Node with Dawn, one after another, and prints a table. It ends with status 1
// where tokens differ. Wanted: web/pkg (./build.sh web), the default model, web/runtimes/node_modules.
import { execFileSync, spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { argv, env, execPath, exit, stderr, stdout } from "node:process";
import { fileURLToPath } from "node:url";
import { browser as chromium } from "../../web/chromium.js";
import { browser as firefox } from "../../web/firefox.js";
import { CACHE, serve } from "../../web/serve.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const RUNTIMES = join(ROOT, "web", "runtimes");
const [binary, ...manifests] = argv.slice(2);
if (!binary) {
  stderr.write("usage: node tools/portability/speed.mjs BINARY [NAME=MANIFEST]…\n");
  exit(2);
}
const PROMPT = "Once upon a time";
const MODELS = [
  {
    what: "default model",
    path: join(CACHE, "SmolLM2-135M-Instruct.Q4_1.gguf"),
    at: "/models/SmolLM2-135M-Instruct.Q4_1.gguf",
    tokens: 64,
  },
  { what: "tiny model", path: join(ROOT, "tests", "fixtures", "tiny.gguf"), at: "/fixtures/tiny.gguf", tokens: 600 },
];
const swiftshader = manifests.find((name) => name.startsWith("SwiftShader="))?.split("=")[1];
const on = (manifest) => (manifest ? { ...env, VK_DRIVER_FILES: manifest, VK_ICD_FILENAMES: manifest } : env);

/** The best of two runs, with the tokens of the first. */
const best = (runs) => ({ tokens: runs[0].tokens, rate: Math.max(...runs.map(({ rate }) => rate)) });

function native(model, manifest) {
  const options = ["--temp", "0", "--json", "--quiet", "-n", String(model.tokens)];
  const run = () => {
    const lines = execFileSync(binary, ["run", "-m", model.path, "-p", PROMPT, ...options], {
      env: on(manifest),
      encoding: "utf8",
    });
    const pieces = lines
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const { summary } = pieces.pop();
    return { tokens: pieces.map(({ token }) => token), rate: summary.decode_tps, adapter: summary.adapter };
  };
  const runs = [run(), run()];
  return { ...best(runs), adapter: runs[0].adapter };
}

async function inBrowser(launch, url) {
  const { context, close } = await launch();
  const page = await context.newPage();
  await page.goto(`${url}/blank.html`);
  const found = [];
  for (const model of MODELS) {
    const { runs, adapter } = await page.evaluate(
      async ([model, prompt]) => {
        const { Engine } = await import("/brooklet/index.js");
        const engine = await Engine.load({ model: model.at, cache: false });
        const runs = [];
        for (let run = 0; run < 2; run += 1) {
          await engine.reset();
          const stream = engine.stream(prompt, { temperature: 0, maxTokens: model.tokens });
          const tokens = [];
          for await (const { token } of stream) tokens.push(token);
          runs.push({ tokens, rate: stream.stats.decodeTps });
        }
        const { adapter } = engine.info;
        await engine.unload();
        return { runs, adapter: adapter.name };
      },
      [model, PROMPT],
    );
    found.push({ ...best(runs), adapter });
  }
  await close();
  return found;
}

async function outside([program, ...options], environment, url) {
  const found = [];
  for (const model of MODELS) {
    const request = {
      assets: `${url}/brooklet/`,
      model: url + model.at,
      prompt: PROMPT,
      tokens: model.tokens,
      repeat: 2,
    };
    const child = spawn(program, [...options, join(RUNTIMES, "stream.mjs"), JSON.stringify(request)], {
      env: environment,
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.on("data", (piece) => (text += piece));
    await new Promise((resolve) => child.on("close", resolve));
    const { runs, info } = JSON.parse(text.trim().split("\n").at(-1));
    found.push({ ...best(runs), adapter: info.adapter.name });
  }
  return found;
}

const server = await serve({
  folders: { "/": join(ROOT, "www"), "/models": CACHE, "/fixtures": join(ROOT, "tests", "fixtures") },
  before: (req, res) =>
    req.url === "/blank.html" &&
    res.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>t</title>"),
});
const rows = [];
const row = (name, found) => {
  rows.push({ name, found });
  stderr.write(`${name}: ${found.map(({ rate, adapter }) => `${rate.toFixed(1)} (${adapter})`).join(", ")}\n`);
};
row(
  "native",
  MODELS.map((model) => native(model)),
);
for (const [name, manifest] of manifests.map((text) => text.split("=")))
  row(
    `native, ${name}`,
    MODELS.map((model) => native(model, manifest)),
  );
row("Chromium", await inBrowser(chromium, server.url));
row("Firefox", await inBrowser(firefox, server.url));
row("Deno", await outside([join(RUNTIMES, "node_modules", ".bin", "deno"), "run", "--allow-all"], env, server.url));
if (swiftshader) row("Node on Dawn", await outside([execPath], on(swiftshader), server.url));
await server.close();

const same = (name, at) =>
  rows.find((other) => other.name === name).found[at].tokens.join() === rows[0].found[at].tokens.join();
stdout.write(
  "| platform | adapter | the same tokens as natively | default model, tokens/s | tiny model, tokens/s |\n|---|---|---|--:|--:|\n",
);
let equal = true;
for (const { name, found } of rows) {
  const both = found.map((_, at) => same(name, at));
  equal &&= both.every(Boolean);
  const told = both.map((yes, at) => (yes ? `${MODELS[at].tokens}` : "**differ**")).join(", ");
  stdout.write(
    `| ${name} | ${found[0].adapter} | ${told} | ${found.map(({ rate }) => rate.toFixed(1)).join(" | ")} |\n`,
  );
}
exit(equal ? 0 : 1);
