// Engines that hang must go all the same.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ROOT, packagePages } from "./harness.js";

const here = packagePages();

/** Before the package's own worker: a GPU that answers no more, or a script that never ends, when the page says so. */
const HANGS = `
const channel = new BroadcastChannel("hang");
const { mapAsync } = GPUBuffer.prototype;
channel.onmessage = ({ data: [to, data] }) => {
  if (to !== self.name) return;
  if (data === "mend") GPUBuffer.prototype.mapAsync = mapAsync;
  if (data === "busy") {
    channel.postMessage("hung");
    for (;;);
  }
  if (data === "gpu")
    GPUBuffer.prototype.mapAsync = () => {
      channel.postMessage("hung");
      return new Promise(() => {});
    };
  channel.postMessage("heard");
};
`;

test("unload waits for nothing that hangs, wherever the engine runs", { timeout: 300_000 }, async () => {
  here.faults = (req, res) => {
    if (req.url !== "/brooklet/worker.js") return false;
    const own = readFileSync(join(ROOT, "web", "pkg", "worker.js"), "utf8");
    res.writeHead(200, { "content-type": "text/javascript" }).end(HANGS + own);
    return true;
  };
  const found = await here.inPage(async ({ Engine, TINY, collect }) => {
    const channel = new BroadcastChannel("hang");
    const says = (word) =>
      new Promise((resolve) => channel.addEventListener("message", ({ data }) => data === word && resolve()));
    const { mapAsync } = GPUBuffer.prototype;
    const hangHere = () =>
      new Promise((resolve) => {
        GPUBuffer.prototype.mapAsync = () => {
          resolve();
          return new Promise(() => {});
        };
      });
    const worker = new Worker("/brooklet/worker.js", { type: "module", name: "mine" });
    const ends = {};
    for (const [name, how, options] of [
      ["its own worker, the GPU", "gpu", {}],
      ["its own worker, the script", "busy", {}],
      ["the caller's worker", "gpu", { worker }],
      ["the page", "page", { worker: false }],
    ]) {
      const engine = await Engine.load({ model: TINY, tune: "off", ...options });
      const stream = engine.stream("hello");
      await stream.next();
      const hung = how === "page" ? hangHere() : says("hung");
      const to = options.worker ? "mine" : "brooklet";
      if (how === "gpu") {
        const heard = says("heard");
        channel.postMessage([to, how]);
        await heard;
      } else if (how === "busy") channel.postMessage([to, how]);
      const rest = collect(stream).then(() => stream.stats.stopReason);
      await hung;
      const other = engine.tokenize("x").then(
        () => "done",
        (error) => error.code,
      );
      await engine.unload();
      await engine.unload(); // twice is no harm
      ends[name] = [await rest, await other, await engine.feed("x").catch((error) => error.code)];
    }
    GPUBuffer.prototype.mapAsync = mapAsync;
    // the caller's worker takes another engine
    const mended = says("heard");
    channel.postMessage(["mine", "mend"]);
    await mended;
    const engine = await Engine.load({ model: TINY, tune: "off", worker });
    ends.again = (await collect(engine.stream("a", { maxTokens: 3 }))).length;
    await engine.unload();
    return ends;
  });
  assert.deepEqual(found, {
    "its own worker, the GPU": ["stopped", "aborted", "bad-option"],
    "its own worker, the script": ["stopped", "aborted", "bad-option"],
    "the caller's worker": ["stopped", "aborted", "bad-option"],
    "the page": ["stopped", "aborted", "bad-option"],
    again: 3,
  });
});
