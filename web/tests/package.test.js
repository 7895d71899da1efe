// The package in a browser: loading, streaming, stopping, feeding, resetting.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { CACHE, MODEL, nativeStream, packagePages, sha256 } from "./harness.js";

const here = packagePages();
const ids = (pieces) => pieces.map(({ token }) => token);

test(
  "the default model streams the tokens of the native binary, in a small heap, and is kept",
  { timeout: 600_000 },
  async () => {
    const prompt = "The capital of France is";
    const { pieces: native, summary } = nativeStream(join(CACHE, MODEL), prompt, 64);
    const run = async ({ Engine, collect, keptModels, warmWorker }, { prompt, url, sum, n }) => {
      const reports = [];
      let most = 0;
      const worker = (globalThis.own ??= warmWorker()); // whose heap no other engine has grown
      const onProgress = (report) => reports.push(report);
      const engine = await Engine.load({ model: url, sha256: sum, worker, onProgress });
      const stream = engine.stream(prompt, { temperature: 0, maxTokens: n });
      const pieces = await collect(stream);
      most = Math.max(engine.info.bytes.wasm, stream.stats.wasmBytes);
      const { info } = engine;
      await engine.unload();
      return { pieces, stats: stream.stats, info, reports, most, kept: await keptModels() };
    };
    const argument = { prompt, url: `/models/${MODEL}`, sum: sha256(join(CACHE, MODEL)), n: 64 };
    const first = await here.inPage(run, argument);
    assert.deepEqual(
      ids(first.pieces),
      native.map(({ token }) => token),
    );
    assert.equal(first.pieces.map(({ text }) => text).join(""), native.map(({ text }) => text).join(""));
    assert.deepEqual(
      first.pieces.map(({ index }) => index),
      native.map((_, i) => summary.prompt_tokens + i),
    );
    assert.equal(first.stats.stopReason, "length");
    // wasm memory never shrinks, so this is the most there was during the load
    assert.ok(first.most < 64 << 20, `the wasm heap took ${first.most} bytes`);
    assert.equal(first.info.bytes.weights, summary.weight_bytes);
    assert.ok(first.reports.some(({ from, loaded, total }) => from === "network" && loaded > 0 && loaded < total));
    assert.equal(first.info.kept, true);
    assert.deepEqual(
      first.kept.map(({ name, complete }) => [name, complete]),
      [[MODEL, true]],
    );

    here.faults = (req, res) => req.url.endsWith(".gguf") && res.writeHead(503).end();
    const second = await here.inPage(run, { ...argument, n: 2 });
    assert.deepEqual(ids(second.pieces), ids(first.pieces).slice(0, 2));
    assert.deepEqual(
      [...new Set(second.reports.map(({ stage, from }) => `${stage} ${from}`))],
      ["load cache", "compile cache"],
      "what was hashed when it was kept is not hashed anew",
    );
  },
);

test("what is not taken has never been: a stream that is left goes on exactly", async () => {
  for (const temperature of [0, 0.8]) {
    const found = await here.inPage(async ({ load, collect }, temperature) => {
      const options = { temperature, seed: 5, maxTokens: 30 };
      const engine = await load({ sinks: 4, window: 12, chunk: 8, kv: "f32" });
      const whole = await collect(engine.stream("once upon", { ...options, temperature: 0 }));
      await engine.reset();
      const parts = [];
      const positions = [];
      for (const n of [1, 3, 2, 8]) {
        // left in the middle of whatever was handed over at once
        const stream = engine.stream(parts.length ? "" : "once upon", { ...options, maxTokens: Infinity });
        const some = await collect(stream, n);
        parts.push(...some);
        positions.push(stream.stats.position);
      }
      const position = engine.stream("", options);
      await position.next();
      await position.stop();
      await engine.reset();
      const prompt = (await engine.tokenize("once upon")).length;
      await engine.unload();
      return { whole, parts, positions, prompt, last: position.stats };
    }, temperature);
    const { whole, parts, positions, prompt, last } = found;
    assert.ok(parts, JSON.stringify(found));
    if (temperature === 0) assert.deepEqual(parts, whole.slice(0, parts.length));
    assert.deepEqual(
      parts.map(({ index }) => index),
      parts.map((_, i) => prompt + i),
    );
    assert.deepEqual(
      positions,
      [1, 4, 6, 14].map((n) => prompt + n),
    );
    assert.deepEqual([last.position, last.stopReason], [prompt + 14 + 1, "stopped"]);
  }
});

test("seeds, stop texts, lengths, pauses, feeding, resetting, another policy", async () => {
  const found = await here.inPage(async ({ load, collect }) => {
    const engine = await load({ window: 40, sinks: 4 });
    const text = async (options, prompt = "abc") => {
      await engine.reset();
      const stream = engine.stream(prompt, { seed: 7, maxTokens: 40, ...options });
      const out = (await collect(stream)).map((piece) => piece.text).join("");
      return { out, stats: stream.stats };
    };
    const plain = await text({});
    const again = await text({});
    const other = await text({ seed: 8 });
    const middle = plain.out.slice(10, 14);
    const stopped = await text({ stop: ["never there", middle] });
    await engine.reset();
    const fed = await engine.feed("abc");
    const stream = engine.stream("", { seed: 7, maxTokens: 40 });
    const continued = (await collect(stream)).map((piece) => piece.text).join("");
    // two at once, not waited for, come in order
    await engine.reset();
    const both = engine.stream("abc", { seed: 7 });
    const pair = await Promise.all([both.next(), both.next()]);
    // a new stream ends the one before it
    const next = engine.stream("d", { maxTokens: 1 });
    await next.next();
    const ended = both.stats.stopReason;
    const none = await text({ maxTokens: 0 });
    await engine.setPolicy("window");
    const window = engine.info.cache.policy;
    await engine.reset({ policy: "dense", window: 8 });
    const dense = engine.stream("abcd", { temperature: 0 });
    const full = [(await collect(dense)).length, dense.stats.stopReason];
    const tokens = await engine.tokenize("et a");
    await engine.unload();
    await engine.unload();
    const dead = await engine.feed("x").catch((error) => error.code);
    return {
      plain,
      again,
      other,
      middle,
      stopped,
      fed,
      continued,
      pair,
      ended,
      none,
      window,
      full,
      tokens,
      dead,
      info: engine.info,
    };
  });
  assert.equal(found.plain.out, found.again.out);
  assert.notEqual(found.plain.out, found.other.out);
  assert.equal(found.stopped.out, found.plain.out.slice(0, found.plain.out.indexOf(found.middle)));
  assert.equal(found.stopped.stats.stopReason, "stop");
  assert.equal(found.fed, 3);
  assert.equal(found.continued, found.plain.out);
  const first = found.pair.map(({ value }) => value.text).join("");
  assert.ok(first.length >= 2 && found.plain.out.startsWith(first), `${first} of ${found.plain.out}`);
  assert.equal(found.ended, "stopped");
  assert.deepEqual([found.none.out, found.none.stats.stopReason], ["", "length"]);
  assert.equal(found.window, "window");
  assert.deepEqual(found.full, [5, "cache full"]);
  assert.deepEqual(
    found.tokens.map(({ text }) => text),
    ["et", " ", "a"],
  );
  assert.equal(found.dead, "bad-option");
  assert.equal(found.info.cache.policy, "dense");
});

test("which kernels suit the device is measured once and kept by the page", async () => {
  const found = await here.inPage(async ({ Engine, TINY, load }) => {
    const origin = async (options) => {
      const engine = await load({ tune: undefined, ...options });
      const { kernels } = engine.info;
      await engine.unload();
      return kernels.origin;
    };
    const origins = [await origin({ tune: "off" }), await origin(), await origin(), await origin({ tune: "again" })];
    localStorage.setItem("brooklet.tuned", "{ damaged");
    origins.push(await origin({ worker: false }), await origin());
    return { origins, refused: await origin({ tune: "no" }).catch(({ code }) => code) };
  });
  assert.deepEqual(found.origins, ["class", "measured", "kept", "measured", "measured", "kept"]);
  assert.equal(found.refused, "bad-option");
});

test("an engine in the page, one in the caller's worker, and two at once", async () => {
  const found = await here.inPage(async ({ Engine, TINY, collect }) => {
    const worker = new Worker("/brooklet/worker.js", { type: "module" });
    const tune = "off";
    const bytes = await (await fetch(TINY)).arrayBuffer();
    const engines = await Promise.all([
      Engine.load({ model: TINY, tune, worker: false }),
      Engine.load({ model: bytes, tune, worker }),
      Engine.load({ model: new File([bytes], "mine.gguf"), tune }),
    ]);
    const streams = engines.map((engine) => collect(engine.stream("hello", { temperature: 0, maxTokens: 20 })));
    const outputs = await Promise.all(streams);
    const second = await Engine.load({ model: bytes, worker }).catch((error) => error.message);
    // GPU memory is given back at once, not when somebody collects the garbage
    let lost = 0;
    const { createBuffer } = GPUDevice.prototype;
    const devices = new Set();
    GPUDevice.prototype.createBuffer = function (...all) {
      devices.add(this);
      return createBuffer.apply(this, all);
    };
    await engines[0].reset({ window: 50 });
    for (const device of devices) void device.lost.then(({ reason }) => (lost += reason === "destroyed"));
    await Promise.all(engines.map((engine) => engine.unload()));
    await new Promise((resolve) => setTimeout(resolve, 100));
    GPUDevice.prototype.createBuffer = createBuffer;
    return { outputs, second, devices: devices.size, lost };
  });
  assert.equal(found.outputs?.length, 3, JSON.stringify(found));
  assert.equal(found.outputs[0].length, 20);
  assert.deepEqual(found.outputs[1], found.outputs[0]);
  assert.deepEqual(found.outputs[2], found.outputs[0]);
  assert.match(found.second, /has an engine already/);
  assert.deepEqual([found.devices, found.lost], [1, 1]);
});

test("what is odd about a file is told, and it runs all the same", async () => {
  const found = await here.inPage(async ({ TINY, load, collect }) => {
    const tiny = new Uint8Array(await (await fetch(TINY)).arrayBuffer());
    const odd = tiny.slice();
    const name = new TextDecoder("latin1").decode(odd).indexOf("general.name") + 12 + 4 + 8;
    odd[name] = 0xff;
    const outputs = [];
    const warnings = [];
    const onWarning = (warning) => warnings.push(warning);
    for (const model of [tiny, odd]) {
      const engine = await load({ model, onWarning });
      outputs.push(await collect(engine.stream("hello", { temperature: 0, maxTokens: 20 })));
      await engine.unload();
    }
    return { outputs, warnings };
  });
  assert.equal(found.outputs?.length, 2, JSON.stringify(found));
  const [plain, odd] = found.outputs;
  assert.equal(plain.length, 20);
  assert.deepEqual(odd, plain);
  assert.equal(found.warnings.length, 1, JSON.stringify(found.warnings));
  assert.match(found.warnings[0], /the value of general.name is not valid UTF-8/);
});

test("penalties go on over the end of a stream, a prompt and what was taken back", async () => {
  const texts = await here.inPage(async ({ load }) => {
    const engine = await load({ window: 100 });
    const settings = { temperature: 0, presencePenalty: 3, frequencyPenalty: 2 };
    const taken = async (lengths, options = settings) => {
      await engine.reset();
      const tokens = [];
      for (const length of lengths) {
        const stream = engine.stream(tokens.length ? "" : "abcabc", options);
        const before = tokens.length;
        // left in the middle of what was made ahead
        for await (const { token } of stream) if (tokens.push(token) === before + length) break;
      }
      return tokens.join();
    };
    const texts = [
      await taken([60]),
      await taken([30, 30]),
      await taken([1, 9, 20, 30]),
      await taken([60], { temperature: 0 }),
    ];
    await engine.unload();
    return texts;
  });
  assert.equal(texts[1], texts[0]);
  assert.equal(texts[2], texts[0]);
  assert.notEqual(texts[3], texts[0], "the penalties matter here");
});
