// The package outside a browser, in one thread: under Node with Dawn, which Chromium has too, and in Deno, whose WebGPU
// is wgpu.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { env, execPath } from "node:process";
import { CACHE, MODEL, ROOT, TINY, nativeStream, site, withSwiftShader } from "../tests/harness.js";

const HERE = join(ROOT, "web", "runtimes");
const RUNTIMES = {
  // Dawn has no adapter on lavapipe of Mesa 22.3, which lacks shaderUniformBufferArrayDynamicIndexing.
  "Node on Dawn": { command: [execPath], environment: withSwiftShader },
  Deno: { command: [join(HERE, "node_modules", ".bin", "deno"), "run", "--allow-all"], environment: () => env },
};
const MODELS = [
  { name: "tiny.gguf", path: TINY, at: "/fixtures/tiny.gguf", prompt: "hello there" },
  { name: MODEL, path: join(CACHE, MODEL), at: `/models/${MODEL}`, prompt: "The capital of France is" },
];
const TOKENS = 64;
let server;

before(async () => (server = await site()));
after(() => server?.close());

/** What `stream.mjs` says. Not waited for by blocking: it is served from here. */
function streamed({ command: [program, ...options], environment }, request) {
  return new Promise((resolve, reject) => {
    const process = spawn(program, [...options, join(HERE, "stream.mjs"), JSON.stringify(request)], {
      env: environment(),
    });
    const said = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"]) process[stream].on("data", (text) => (said[stream] += text));
    process.on("error", reject);
    process.on("close", (code) => {
      if (code === 0) resolve(JSON.parse(said.stdout.trim().split("\n").at(-1)));
      else reject(new Error(`exit status ${code}: ${said.stderr}${said.stdout}`));
    });
  });
}

for (const [name, runtime] of Object.entries(RUNTIMES)) {
  for (const { name: file, path, at, prompt } of MODELS) {
    test(`${name} streams the tokens of the native binary: ${file}`, { timeout: 300_000 }, async (t) => {
      const native = nativeStream(path, prompt, TOKENS);
      const request = { assets: `${server.url}/brooklet/`, model: server.url + at, prompt, tokens: TOKENS };
      const { runs, warnings, info } = await streamed(runtime, request);
      t.diagnostic(`${runs[0].rate.toFixed(1)} tokens/s on ${info.adapter.name}`);
      assert.deepEqual(
        runs[0].tokens,
        native.pieces.map(({ token }) => token),
      );
      assert.equal(runs[0].tokens.length, TOKENS);
      assert.equal(runs[0].text, native.pieces.map(({ text }) => text).join(""));
      assert.deepEqual(warnings, []);
    });
  }
}
