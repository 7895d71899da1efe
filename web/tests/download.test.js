// Downloads that are interrupted, damaged, resumed, or have nowhere to be kept.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, test } from "node:test";
import { TINY, needs, packagePages, readModel, reader, sha256 } from "./harness.js";

const BYTES = readFileSync(TINY);
const SUM = sha256(TINY);
const here = packagePages();
let faults, requests;

beforeEach(() => {
  requests = [];
  faults = whole;
  here.faults = (req, res) => {
    if (reader(req, res)) return true;
    if (!req.url.startsWith("/models/")) return false;
    requests.push(req.headers.range ?? "all");
    faults(req, res);
    return true;
  };
});

/** Answers as a good server does; `upTo` cuts the connection after so many bytes of the file. */
function answer(req, res, { bytes = BYTES, upTo = Infinity, ranges = true, etag = '"1"', length = true } = {}) {
  const from = ranges ? Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? "")?.[1] ?? 0) : 0;
  const headers = { ...(etag && { etag }) };
  if (length) headers["content-length"] = bytes.length - from;
  if (from > 0) headers["content-range"] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
  res.writeHead(from > 0 ? 206 : 200, headers);
  if (upTo >= bytes.length) res.end(bytes.subarray(from));
  else res.write(bytes.subarray(from, upTo), () => setTimeout(() => res.destroy(), 500));
}
const whole = (req, res) => answer(req, res);

/** Reads all of a model where nothing but its bytes matters. */
const read = (name, options) => readModel(here.page, `${here.url}/models/${name}`, options);

/** Loads a model and streams a little; whatever happens comes back as data. */
const load = (name, options = {}) =>
  here.inPage(
    async ({ load, collect, keptModels }, { name, ...options }) => {
      const warnings = [];
      const from = new Set();
      let result;
      try {
        const engine = await load({
          model: `/models/${name}`,
          onWarning: (warning) => warnings.push(warning),
          onProgress: (progress) => from.add(progress.from),
          ...options,
        });
        const pieces = await collect(engine.stream("hello", { temperature: 0, maxTokens: 5 }));
        result = { text: pieces.map(({ token }) => token), kept: engine.info.kept };
        await engine.unload();
      } catch (error) {
        result = { code: error.code, message: error.message };
      }
      return { ...result, warnings, from: [...from], models: await keptModels() };
    },
    { name, ...options },
  );

/** What it streams where nothing is in its way. */
const straight = async () => {
  const { text } = await load("straight.gguf", { cache: false });
  assert.equal(text?.length, 5);
  requests = [];
  return text;
};

test("a whole download is kept, and read from there the next time", async () => {
  const expected = await straight();
  const first = await load("a.gguf", { sha256: SUM });
  assert.deepEqual([first.kept, first.from, first.warnings], [true, ["network"], []]);
  assert.deepEqual(first.text, expected);
  const second = await load("a.gguf", { sha256: SUM });
  assert.deepEqual([second.text, second.from], [expected, ["cache"]]);
  assert.deepEqual(requests, ["all"]);
  const without = await load("a.gguf", { cache: false });
  assert.deepEqual([without.text, without.kept, without.from], [expected, false, ["network"]]);
});

test("an interrupted download goes on where it stopped, by range", async () => {
  let left = [40_000, 90_000];
  faults = (req, res) => answer(req, res, { upTo: left.shift() ?? Infinity });
  const found = await read("b.gguf", { sha256: SUM });
  assert.deepEqual([found.read, found.kept], [SUM, true], JSON.stringify(found));
  assert.deepEqual(requests, ["all", "bytes=40000-", "bytes=90000-"]);
  // and the same without a place to keep it
  left = [40_000, 90_000];
  const memory = await read("b2.gguf", { cache: false });
  assert.deepEqual([memory.read, memory.kept], [SUM, false], JSON.stringify(memory));
});

test("a server that ignores ranges sends it all again, and that is right too", async () => {
  const left = [60_000];
  faults = (req, res) => answer(req, res, { ranges: false, upTo: left.shift() ?? Infinity });
  const found = await read("c.gguf", { sha256: SUM });
  assert.deepEqual([found.read, found.kept], [SUM, true], JSON.stringify(found));
});

test("a server that does not say how long the file is", async () => {
  faults = (req, res) => answer(req, res, { length: false });
  const found = await read("d.gguf", { sha256: SUM });
  assert.deepEqual([found.read, found.kept], [SUM, true], JSON.stringify(found));
});

test("what came before an abort is resumed by the next load; of a changed file it is not", async () => {
  for (const [name, etag, range, before] of [
    ["e.gguf", '"1"', /^bytes=\d{5,}-$/, BYTES.length],
    ["f.gguf", '"2"', /^all$/, BYTES.length],
    // of another length, from a server that tells other sites no more than that
    ["n.gguf", null, /^all$/, BYTES.length + 1],
  ]) {
    requests = [];
    // half of it, and then nothing until the page gives up
    const headers = { ...(etag && { etag: '"1"' }), "content-length": before };
    faults = (req, res) => res.writeHead(200, headers).write(BYTES.subarray(0, 120_000));
    const first = await read(name, { abortAfter: 1 });
    assert.equal(first.code, "aborted", JSON.stringify(first));
    const part = first.models.find((model) => model.name === name);
    assert.deepEqual([part.complete, part.total], [false, before]);
    faults = (req, res) => answer(req, res, { etag });
    const second = await read(name, { sha256: SUM });
    assert.deepEqual([second.read, second.kept], [SUM, true], JSON.stringify(second));
    assert.match(requests.at(-1), range);
  }
});

test("a corrupt copy is noticed and fetched anew", async () => {
  const expected = await straight();
  await read("g.gguf", { sha256: SUM });
  const damage = (how) =>
    here.page.evaluate(async (how) => {
      const dir = await (await navigator.storage.getDirectory()).getDirectoryHandle("brooklet");
      for await (const [name, handle] of dir.entries()) {
        if (!name.endsWith(".gguf")) continue;
        const writable = await handle.createWritable({ keepExistingData: true });
        if (how === "short") await writable.truncate(100_000);
        else
          await writable.write({
            type: "write",
            position: how === "head" ? 0 : 150_000,
            data: new Uint8Array(64).fill(9),
          });
        await writable.close();
      }
    }, how);
  for (const [how, sum, why] of [
    ["short", undefined, /100000 bytes instead of/],
    ["middle", SUM, /its sha256 is/],
    ["head", undefined, /not a GGUF file/],
  ]) {
    await damage(how);
    // what is wrong with its head the parser finds
    const found = await (how === "head" ? load : read)("g.gguf", { sha256: sum });
    assert.deepEqual(
      [found.text ?? found.read, found.kept],
      [how === "head" ? expected : SUM, true],
      JSON.stringify(found),
    );
    assert.match(found.warnings.join(), why);
    assert.match(found.warnings.join(), /g\.gguf is corrupt .* fetched anew/);
  }
});

test("another file than was asked for is refused and not kept", async () => {
  const other = Buffer.from(BYTES);
  other[150_000] ^= 1;
  faults = (req, res) => answer(req, res, { bytes: other });
  const found = await read("h.gguf", { sha256: SUM });
  assert.equal(found.code, "network");
  assert.match(found.message, new RegExp(`has sha256 [0-9a-f]{64}, not ${SUM}`));
  assert.deepEqual(
    found.models.filter(({ name }) => name === "h.gguf"),
    [],
  );
});

test("addresses that do not answer are said", async () => {
  faults = (req, res) => res.writeHead(404).end();
  const missing = await read("i.gguf");
  assert.match(`${missing.code}: ${missing.message}`, /^network: .*i\.gguf answered 404 Not Found; check the address/);
  faults = (req, res) => res.destroy();
  const dead = await read("j.gguf");
  assert.match(`${dead.code}: ${dead.message}`, /^network: .*could not be fetched .*check the connection/);
  faults = (req, res) => answer(req, res, { upTo: 50_000, ranges: false });
  const short = await read("k.gguf");
  assert.match(`${short.code}: ${short.message}`, /^network: /);
});

test("where there is no room the model is not kept, and runs all the same", { skip: needs("quota") }, async () => {
  const session = await here.context.newCDPSession(here.page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: here.url, quotaSize: 1000 });
  const found = await read("l.gguf");
  await session.send("Storage.overrideQuotaForOrigin", { origin: here.url });
  assert.deepEqual([found.read, found.kept], [SUM, false], JSON.stringify(found));
  assert.match(found.warnings.join(), /l\.gguf will not be kept in this browser/);
});

test("two engines that load the same model at once both get it", async () => {
  const held = [];
  faults = (req, res) => {
    // Neither gets a byte before both have asked: whoever came late would find a kept copy.
    if (held.push(() => whole(req, res)) === 2) for (const go of held) go();
  };
  const both = await Promise.all([read("m.gguf"), read("m.gguf")]);
  assert.deepEqual(
    both.map((found) => found.read),
    [SUM, SUM],
    JSON.stringify(both),
  );
  assert.deepEqual(both.map(({ kept }) => kept).sort(), [false, true]);
  assert.match(both.flatMap(({ warnings }) => warnings).join(), /by another engine too/);
});

test("a kept copy is hashed once, and again after it was written to", async () => {
  const stages = async (options) => (await read("o.gguf", options)).stages;
  await read("o.gguf"); // with nothing to compare it with
  assert.deepEqual(await stages({ sha256: SUM }), ["verify"]);
  assert.deepEqual(await stages({ sha256: SUM }), []);
  await here.page.evaluate(async () => {
    const dir = await (await navigator.storage.getDirectory()).getDirectoryHandle("brooklet");
    for await (const [name, handle] of dir.entries()) {
      if (!name.endsWith(".gguf")) continue;
      const writable = await handle.createWritable({ keepExistingData: true });
      await writable.write({ type: "write", position: 0, data: "GGUF" }); // what is there already
      await writable.close();
    }
  });
  assert.deepEqual(await stages({ sha256: SUM }), ["verify"]);
  assert.deepEqual(await stages({ sha256: SUM }), []);
  const other = await read("o.gguf", { sha256: SUM.replace(/./g, "0") });
  assert.match(other.warnings.join(), new RegExp(`o.gguf is corrupt .its sha256 is ${SUM}`));
  // one that was hashed while it came needs no more
  await read("p.gguf", { sha256: SUM });
  assert.deepEqual(await stages({ sha256: SUM }), ["load"]); // o.gguf was forgotten
  assert.deepEqual((await read("p.gguf", { sha256: SUM })).stages, []);
  assert.equal(requests.length, 4, "o, another o that is refused, p, o");
});

test("an answer that is given up is not sent on", { timeout: 120_000 }, async () => {
  let gone;
  const given_up = new Promise((resolve) => (gone = resolve));
  faults = async (req, res) => {
    if (requests.length === 1) return answer(req, res, { upTo: 40_000 });
    if (requests.length > 2) {
      await given_up; // for ever, where nobody gives it up
      return answer(req, res);
    }
    // another part than was asked for, without an end
    res.writeHead(206, { etag: '"1"', "content-range": `bytes 7-${BYTES.length - 1}/${BYTES.length}` });
    res.write(BYTES.subarray(7, 1000));
    res.on("close", gone);
  };
  const found = await read("q.gguf", { sha256: SUM });
  assert.deepEqual([found.read, found.kept], [SUM, true], JSON.stringify(found));
  assert.deepEqual(requests, ["all", "bytes=40000-", "bytes=40000-"]);
});

test("the browser is asked to let a model stay when one is kept, and not again", async (t) => {
  const page = here.page;
  await page.evaluate(() => {
    globalThis.asked = 0;
    navigator.storage.persisted = async () => false;
    navigator.storage.persist = async () => (globalThis.asked += 1) > 0;
  });
  t.after(() =>
    page.evaluate(() => {
      delete navigator.storage.persisted;
      delete navigator.storage.persist;
    }),
  );
  const asked = () => page.evaluate(() => globalThis.asked);
  assert.equal((await load("r.gguf", { cache: false })).kept, false);
  assert.equal(await asked(), 0);
  assert.equal((await load("r.gguf")).kept, true);
  assert.equal(await asked(), 1);
  assert.deepEqual((await load("r.gguf")).from, ["cache"]);
  assert.equal(await asked(), 1);
});
