// A model in several files: any of them leads to the others, on a server and among files that were picked.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { split } from "./gguf.js";
import { TINY, packagePages } from "./harness.js";

const here = packagePages();
const COUNT = 8; // more than a browser has connections to a server
const nameOf = (no) => `tiny model-${String(no + 1).padStart(5, "0")}-of-0000${COUNT}.gguf`;
const FILES = split(readFileSync(TINY), COUNT);

/** Serves the files, but `missing`. */
const serves =
  (missing = -1) =>
  (req, res) => {
    const no = FILES.findIndex((_, i) => req.url === `/split/${encodeURIComponent(nameOf(i))}`);
    if (no < 0) return false;
    if (no === missing) res.writeHead(404).end();
    else res.writeHead(200, { "content-length": FILES[no].length, etag: `"${no}"` }).end(FILES[no]);
    return true;
  };

/** In the page: the greedy tokens of each model, or the error of its load, and what was kept. */
const tokensOf = async ({ load, collect, keptModels, forgetModel }, { models, names, cache }) => {
  const found = [];
  for (const model of models) {
    const blobs = async (no) =>
      new File([await (await fetch(`/split/${encodeURIComponent(names[no])}`)).blob()], names[no]);
    const source = Array.isArray(model) ? await Promise.all(model.map(blobs)) : model;
    try {
      const engine = await load({ model: source, cache });
      const pieces = await collect(engine.stream("hello", { temperature: 0, maxTokens: 12 }));
      found.push({
        tokens: pieces.map(({ token }) => token).join(),
        bytes: engine.info.model.bytes,
        kept: engine.info.kept,
      });
      await engine.unload();
    } catch (error) {
      found.push({ code: error.code, message: error.message });
    }
  }
  const kept = (await keptModels()).map(({ name, complete }) => `${name} ${complete}`);
  for (const { url } of await keptModels()) await forgetModel(url);
  return { found, kept };
};

const all = [...FILES.keys()];
const names = all.map(nameOf);
const url = (no) => `/split/${encodeURIComponent(nameOf(no))}`;

test("any file of a split model is the whole model", { timeout: 300_000 }, async () => {
  here.faults = serves();
  const models = ["/fixtures/tiny.gguf", url(5), [...all].reverse()];
  const { found } = await here.inPage(tokensOf, { models, names, cache: false });
  const total = FILES.reduce((sum, { length }) => sum + length, 0);
  for (const one of found.slice(1)) assert.deepEqual(one, { tokens: found[0].tokens, bytes: total, kept: false });
});

test("each file of a split model is kept, and found again without the server", { timeout: 300_000 }, async () => {
  here.faults = serves();
  const models = [url(0), url(0)];
  const { found, kept } = await here.inPage(tokensOf, { models, names, cache: true });
  assert.deepEqual(kept, names.map((name) => `${name} true`).sort(), JSON.stringify(found));
  assert.deepEqual([found[0].kept, found[1].kept, found[1].tokens], [true, true, found[0].tokens]);
});

test("a file of a split model that is not there is named", { timeout: 300_000 }, async () => {
  here.faults = serves(3);
  const models = [url(0), [0, 1, 2, 4, 5, 6, 7]];
  const { found } = await here.inPage(tokensOf, { models, names, cache: false });
  assert.equal(found[0].code, "network", JSON.stringify(found));
  assert.ok(found[0].message.includes(`${url(3)} answered 404`), found[0].message);
  assert.equal(found[1].code, "bad-model", JSON.stringify(found));
  assert.ok(found[1].message.includes(`${nameOf(3)} is not among those that were given`), found[1].message);
});

test(
  "a file that nobody reads gives its connection up, and goes on where it stopped",
  { timeout: 300_000 },
  async () => {
    const bytes = Buffer.alloc(80 << 20);
    for (let at = 0; at < bytes.length; at += 4096) bytes.writeUInt32LE(at, at);
    const ranges = [];
    let givenUp = () => {};
    const gone = new Promise((resolve) => (givenUp = resolve));
    here.faults = (req, res) => {
      if (req.url === "/gone") return Boolean(gone.then(() => res.end()));
      if (req.url !== "/split/large") return false;
      const from = Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? "")?.[1] ?? 0);
      ranges.push(from);
      res.once("close", () => givenUp());
      const length = bytes.length - from;
      const headers = {
        etag: '"large"',
        "content-length": length,
        "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
      };
      res.writeHead(from ? 206 : 200, headers);
      // A browser takes in more than is asked of it. The first answer never comes to its end.
      if (from === 0) res.write(bytes.subarray(0, 48 << 20));
      else res.end(bytes.subarray(from));
      return true;
    };
    const found = await here.inPage(async () => {
      const { Download } = await import("/brooklet/download.js");
      const options = { keep: false, yields: true, report: () => {}, warn: () => {} };
      const file = new Download(new URL("/split/large", location.href).href, "large", options);
      await file.start();
      await fetch("/gone");
      const wrong = [];
      const piece = 4 << 20;
      for (let start = 0; start < file.length; start += piece) {
        const view = new DataView((await file.read(start, start + piece)).buffer);
        for (let at = 0; at < piece; at += 4096) if (view.getUint32(at, true) !== start + at) wrong.push(start + at);
        file.release(start + piece);
      }
      await file.finish();
      file.close();
      return { length: file.length, wrong };
    });
    assert.deepEqual(found, { length: bytes.length, wrong: [] });
    assert.equal(ranges[0], 0);
    assert.ok(ranges.length === 2 && ranges[1] > 32 << 20, String(ranges));
  },
);
