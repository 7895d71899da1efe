// A model file above 4 GiB, as every model of 7 billion parameters is: offsets that 32 bits do not hold.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parts } from "./gguf.js";
import { TINY, needs, packagePages } from "./harness.js";

const here = packagePages();
const HOLE = 5 * 2 ** 30;
/** A GGUF file in two pieces, the second of which belongs `HOLE` bytes behind the first. */
function apart(file) {
  const bytes = Buffer.from(file);
  const { entries, data } = parts(bytes);
  for (const { offset, offsetAt } of entries) bytes.writeBigUInt64LE(BigInt(offset + HOLE), offsetAt);
  return { head: bytes.subarray(0, data), tail: bytes.subarray(data) };
}

const { head, tail } = apart(readFileSync(TINY));
const LENGTH = head.length + HOLE + tail.length;

/** Serves both pieces, and of the whole only what lies behind the hole. */
const serves = (ranges) => (req, res) => {
  if (req.url === "/head") return Boolean(res.end(head));
  if (req.url === "/tail") return Boolean(res.end(tail));
  if (req.url !== "/models/far.gguf") return false;
  ranges.push(req.headers.range);
  const from = head.length + HOLE;
  const headers = {
    etag: '"far"',
    "content-range": `bytes ${from}-${LENGTH - 1}/${LENGTH}`,
    "content-length": tail.length,
  };
  res.writeHead(206, headers).end(tail);
  return true;
};

test("a file whose tensors begin behind 5 GiB gives the tokens of the small one", { timeout: 300_000 }, async () => {
  here.faults = serves([]);
  const found = await here.inPage(async ({ load, TINY, collect }, hole) => {
    const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
    const zeros = new Blob([new Uint8Array(64 << 20)]);
    const holes = Array.from({ length: hole / zeros.size }, () => zeros);
    const far = new File([await bytes("/head"), ...holes, await bytes("/tail")], "far.gguf");
    const tokens = [];
    for (const model of [TINY, far]) {
      const engine = await load({ model });
      const pieces = await collect(engine.stream("hello", { temperature: 0, maxTokens: 12 }));
      tokens.push(pieces.map(({ token }) => token).join());
      await engine.unload();
    }
    return { size: far.size, tokens };
  }, HOLE);
  assert.equal(found.size, LENGTH, JSON.stringify(found));
  assert.equal(found.tokens[1], found.tokens[0]);
});

test("a download is resumed, kept and read behind 5 GiB", { timeout: 300_000, skip: needs("quota") }, async () => {
  const ranges = [];
  here.faults = serves(ranges);
  const session = await here.context.newCDPSession(here.page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: here.url, quotaSize: 40 * 2 ** 30 });
  const url = `${here.url}/models/far.gguf`;
  const key = createHash("sha256").update(url).digest("hex").slice(0, 32);
  const found = await here.inPage(
    async ({ load, TINY, collect, keptModels, forgetModel }, { url, key, have, total }) => {
      const first = await (await fetch("/head")).arrayBuffer();
      const root = await navigator.storage.getDirectory();
      const dir = await root.getDirectoryHandle("brooklet", { create: true });
      const write = async (name, data, length) => {
        const writable = await (await dir.getFileHandle(name, { create: true })).createWritable();
        await writable.write(data);
        if (length) await writable.truncate(length);
        await writable.close();
      };
      // what an earlier load has left: all up to the tensors, with a hole that takes no room
      await write(`${key}.gguf`, first, have);
      await write(`${key}.json`, JSON.stringify({ url, total, identity: '"far"', complete: false }));
      const tokens = [];
      for (const model of [TINY, url, url]) {
        const engine = await load({ model, cache: model === url });
        const pieces = await collect(engine.stream("hello", { temperature: 0, maxTokens: 12 }));
        tokens.push(pieces.map(({ token }) => token).join());
        await engine.unload();
      }
      const kept = await keptModels();
      await forgetModel(url);
      return { tokens, kept: kept.map(({ bytes, complete }) => [bytes, complete]) };
    },
    { url, key, have: head.length + HOLE, total: LENGTH },
  );
  assert.deepEqual(found.kept, [[LENGTH, true]], JSON.stringify(found));
  assert.deepEqual(ranges, [`bytes=${head.length + HOLE}-`]);
  assert.equal(found.tokens[1], found.tokens[0]);
  assert.equal(found.tokens[2], found.tokens[0]);
});
