// Everything that can go wrong with the package: options, files, aborts, the device.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { TINY, packagePages } from "./harness.js";

const here = packagePages();

test("wrong options are refused in words before anything starts", async () => {
  const messages = await here.inPage(async ({ Engine, TINY, load }) => {
    const refused = async (work) => {
      try {
        await work();
        return "accepted";
      } catch (error) {
        return `${error.code}: ${error.message}`;
      }
    };
    const loads = (options) => refused(() => Engine.load({ model: TINY, ...options }));
    const engine = await load();
    const stream = (options) => refused(() => engine.stream("x", options));
    const all = [
      await loads({ window: 0 }),
      await loads({ window: 4.5 }),
      await loads({ policy: "best" }),
      await loads({ polcy: "dense" }),
      await loads({ model: 7 }),
      await loads({ model: "ftp://example.org/a.gguf" }),
      await loads({ sha256: "12" }),
      await loads({ policy: "window", sinks: 3 }),
      await refused(() => Engine.load()),
      await stream({ temperature: NaN }),
      await stream({ topP: 2 }),
      await stream({ stop: "x" }),
      await stream({ pace: "fast" }),
      await stream({ maxTokens: -1 }),
      await refused(() => engine.stream(5)),
      await refused(() => engine.setPolicy("dense")),
    ];
    await engine.unload();
    return all;
  });
  assert.ok(Array.isArray(messages), JSON.stringify(messages));
  const expected = [
    /^bad-option: window: 0; a whole number from 1/,
    /^bad-option: window: 4.5/,
    /^bad-option: policy: "best"; "streaming" or "window"/,
    /^bad-option: polcy: there is no such option/,
    /^bad-option: model: 7; a URL/,
    /^bad-option: model: "ftp:.*http/,
    /^bad-option: sha256/,
    /^bad-option: sinks 3: only policy streaming and half-discard have sinks/,
    /^bad-option: options: undefined/,
    /^bad-option: temperature: NaN/,
    /^bad-option: topP: 2; a number from 0 to 1/,
    /^bad-option: stop: "x"; a list of strings/,
    /^bad-option: pace: "fast"; "interactive" or "throughput"/,
    /^bad-option: maxTokens: -1/,
    /^bad-option: prompt: a string/,
    /^bad-option: .*cannot become Dense/,
  ];
  expected.forEach((pattern, i) => assert.match(messages[i], pattern));
});

test("an abort is heard during a load and during a stream", async () => {
  here.faults = (req, res) => {
    if (!req.url.startsWith("/models/slow")) return false;
    res.writeHead(200, { "content-length": "1000000" });
    res.write(readFileSync(TINY).subarray(0, 50_000)); // and never the rest
    return true;
  };
  const found = await here.inPage(async ({ Engine, TINY, load, collect }) => {
    const code = (promise) =>
      promise.then(
        () => "done",
        (error) => error.code,
      );
    const abort = new AbortController();
    const slow = Engine.load({ model: "/models/slow.gguf", signal: abort.signal });
    setTimeout(() => abort.abort(), 300);
    const during = await code(slow);
    const at_once = await code(Engine.load({ model: TINY, signal: AbortSignal.abort() }));
    const engine = await load();
    const stop = new AbortController();
    const stream = engine.stream("hello", { signal: stop.signal });
    await stream.next();
    stop.abort();
    const streaming = await code(collect(stream));
    const long = new AbortController();
    const prompt = engine.stream("hello ".repeat(5000), { signal: long.signal });
    setTimeout(() => long.abort(), 50);
    const prefill = await code(prompt.next());
    // and the engine goes on
    await engine.reset();
    const rest = await collect(engine.stream("a", { maxTokens: 3 }));
    await engine.unload();
    return { during, at_once, streaming, reason: stream.stats.stopReason, prefill, rest: rest.length };
  });
  assert.deepEqual(found, {
    during: "aborted",
    at_once: "aborted",
    streaming: "aborted",
    reason: "aborted",
    prefill: "aborted",
    rest: 3,
  });
});

test("a lost device is said, and another engine works", async () => {
  const found = await here.inPage(async ({ Engine, TINY, load, collect }) => {
    const engine = await Engine.load({ model: TINY, tune: "off" });
    const stream = engine.stream("hello");
    await stream.next();
    await engine[Symbol.for("brooklet.test.loseDevice")]();
    const error = await collect(stream).catch((e) => e);
    const again = await engine.feed("more").catch((e) => e.code);
    await engine.unload();
    const other = await load();
    const rest = await collect(other.stream("a", { maxTokens: 3 }));
    await other.unload();
    return { code: error.code, message: error.message, reason: stream.stats.stopReason, again, rest: rest.length };
  });
  assert.equal(found.code, "device-lost", JSON.stringify(found));
  assert.match(found.message, /GPU device was lost/);
  assert.deepEqual([found.reason, found.again, found.rest], ["error", "device-lost", 3]);
});

test("damaged and foreign files are refused in words, and not kept", async () => {
  const tiny = readFileSync(TINY);
  const files = {
    "html.gguf": Buffer.from("<!doctype html><p>not here"),
    "short.gguf": tiny.subarray(0, 100_000),
    "counts.gguf": Buffer.concat([tiny.subarray(0, 8), Buffer.alloc(8, 0xff), tiny.subarray(16)]),
    "empty.gguf": Buffer.alloc(0),
    "falcon.gguf": Buffer.from(tiny.toString("latin1").replace("llama", "lamma"), "latin1"),
  };
  here.faults = (req, res) => {
    const bytes = files[req.url.replace("/models/", "")];
    if (!bytes) return false;
    res.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return true;
  };
  const found = await here.inPage(async ({ Engine, keptModels }, names) => {
    const errors = {};
    for (const name of names) {
      const error = await Engine.load({ model: `/models/${name}` }).catch((e) => e);
      errors[name] = `${error.code}: ${error.message}`;
    }
    errors.text = await Engine.load({ model: new Blob(["hello"]) }).catch((e) => `${e.code}: ${e.message}`);
    return { errors, kept: await keptModels() };
  }, Object.keys(files));
  assert.match(
    found.errors["html.gguf"],
    /^bad-model: html.gguf: byte 0: this is not a GGUF file: it begins with "<!do"/,
  );
  assert.match(found.errors["short.gguf"], /^bad-model: .*truncated/);
  assert.match(found.errors["counts.gguf"], /^bad-model: /);
  assert.match(found.errors["empty.gguf"], /^(bad-model|network): /);
  assert.match(found.errors["falcon.gguf"], /^(unsupported|bad-model): /);
  assert.match(found.errors.text, /^bad-model: the model: byte 0/);
  assert.deepEqual(
    found.kept.filter(({ name }) => name !== "falcon.gguf"),
    [],
  );
});
