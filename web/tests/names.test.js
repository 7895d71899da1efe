// Names of models, asked of a stand-in for the hub's routes. No browser.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, test } from "node:test";
import { isName, parseName, pick, resolveName } from "../js/names.js";

const SHA256 = "0123456789abcdef".repeat(4);
const PATHS = [
  "README.md",
  "mmproj-model-Q8_0.gguf",
  "Model-UD-Q4_K_M.gguf",
  "Model-Q4_K_M.gguf",
  "Model-Q4_K_S.gguf",
  "model-iq4_nl.gguf",
  "F16/Model ä-F16-00001-of-00002.gguf",
  "F16/Model ä-F16-00002-of-00002.gguf",
  "Model.Q8_0.gguf",
];

const servers = [];
after(() => servers.forEach((server) => server.close()));

/** A hub with files of a repository u/r, a page of the list each. */
async function hub(paths, { status = 200, headers = {}, body } = {}) {
  const asked = [];
  const server = createServer((req, res) => {
    asked.push(req.url);
    const page = Number(new URL(req.url, "http://x").searchParams.get("page") ?? 0);
    if (status !== 200 || body) return res.writeHead(status, headers).end(body ?? "no");
    if (req.url === "/api/models/u/r/refs")
      return res.end(
        JSON.stringify({
          branches: [
            { name: "old", targetCommit: "a" },
            { name: "main", targetCommit: "c0ffee" },
          ],
        }),
      );
    if (!req.url.startsWith("/api/models/u/r/tree/c0ffee?recursive=true")) return res.writeHead(404).end();
    if (page + 1 < paths.length)
      res.setHeader("link", `</api/models/u/r/tree/c0ffee?recursive=true&page=${page + 1}>; rel="next"`);
    const item = {
      type: "file",
      path: paths[page],
      size: 134,
      lfs: { oid: SHA256, size: 5_000_000, pointerSize: 134 },
    };
    return res.end(JSON.stringify(paths.length ? [item] : []));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  servers.push(server);
  return { hub: `http://127.0.0.1:${server.address().port}`, asked };
}

const fails = async (name, options, ...messages) => {
  const error = await resolveName(name, options).then(
    () => assert.fail(`${name} was found`),
    (error) => error,
  );
  for (const message of messages) assert.ok(error.message.includes(message), `${message} is not in ${error.message}`);
  return error.code;
};

test("names are told from addresses", () => {
  assert.ok(isName("hf:a/b") && !isName("https://a/b") && !isName("a/b"));
  assert.deepEqual(parseName("hf:a/b-GGUF"), { user: "a", repo: "b-GGUF", tag: undefined });
  assert.deepEqual(parseName("hf://a/b:x/y.gguf"), { user: "a", repo: "b", tag: "x/y.gguf" });
  for (const wrong of [
    "hf:",
    "hf:a",
    "hf:a/",
    "hf:/b",
    "hf:a/b/c",
    "hf:../b",
    "hf:a/..",
    "hf:a/b:",
    "hf:a/b:../c",
    "hf:a/b:c\\d",
  ])
    assert.throws(() => parseName(wrong), { code: "bad-option" }, wrong);
});

test("the native program's choice", () => {
  const first = (tag, paths = PATHS) => pick(paths, tag)?.[0];
  assert.equal(first("q4_k_m"), "Model-Q4_K_M.gguf");
  assert.equal(first("UD-Q4_K_M"), "Model-UD-Q4_K_M.gguf");
  assert.equal(first("Q8_0"), "Model.Q8_0.gguf");
  assert.equal(first("IQ4_NL"), "model-iq4_nl.gguf");
  assert.equal(first("mmproj-model-Q8_0.gguf"), "mmproj-model-Q8_0.gguf");
  for (const none of ["Q4_K", "Q4_NL", "Q2_K", "00001"]) assert.equal(first(none), undefined, none);
  assert.equal(first(), "Model-Q4_K_M.gguf");
  assert.equal(first(undefined, ["a-F16.gguf", "a-Q8_0.gguf"]), "a-Q8_0.gguf");
  assert.equal(first(undefined, ["b-F16.gguf", "a-Q2_K.gguf"]), "a-Q2_K.gguf");
});

test("a name becomes addresses, of a split model all", async () => {
  const { hub: address, asked } = await hub(PATHS);
  assert.deepEqual(await resolveName("hf:u/r", { hub: address }), {
    name: "hf:u/r:Q4_K_M",
    files: [{ url: `${address}/u/r/resolve/c0ffee/Model-Q4_K_M.gguf`, bytes: 5_000_000, sha256: SHA256 }],
  });
  assert.equal(asked.length, 1 + PATHS.length);
  const { name, files } = await resolveName("hf:u/r:f16", { hub: `${address}/` });
  assert.equal(name, "hf:u/r:F16");
  const urls = [1, 2].map((no) => `${address}/u/r/resolve/c0ffee/F16/Model%20%C3%A4-F16-0000${no}-of-00002.gguf`);
  assert.deepEqual(
    files.map(({ url }) => url),
    urls,
  );
});

test("what cannot be had is a sentence", async () => {
  assert.equal(await fails("hf:u", {}, "hf:u is no name of a model: write hf:USER/REPO"), "bad-option");
  const there = await hub(["a-Q2_K.gguf", "mmproj-a.gguf", "b.gguf"]);
  assert.equal(
    await fails("hf:u/r:Q5_K_M", there, "hf:u/r:Q5_K_M: there is no Q5_K_M; there are: Q2_K (5 MB), b.gguf (5 MB)"),
    "bad-option",
  );
  await fails("hf:u/r", await hub(["README.md"]), "there is no GGUF file in this repository");
  await fails(
    "hf:u/r",
    await hub([PATHS[6]]),
    "of its files F16/Model ä-F16-00002-of-00002.gguf is not in the repository",
  );
  for (const [status, message] of [
    [401, "wants to know who asks (401)"],
    [403, "accept its terms on its page"],
    [404, "has nothing of this name (404)"],
    [418, "answers 418"],
    [503, "fails (503); try again later"],
  ])
    assert.equal(await fails("hf:u/r", await hub([], { status }), "hf:u/r: 127.0.0.1", message), "network");
  await fails("hf:u/r", await hub([], { status: 429, headers: { "retry-after": "7" } }), "try again after 7 s");
  await fails("hf:u/r", await hub([], { body: "<!doctype html>" }), "does not answer as a hub does");
  await fails("hf:u/r", await hub([], { body: "{}" }), "names no commit");
  await fails("hf:u/r", { hub: "http://127.0.0.1:1" }, "127.0.0.1:1 cannot be reached");
});

test("it can be given up", async () => {
  const abort = new AbortController();
  const { hub: address } = await hub(PATHS);
  const asked = resolveName("hf:u/r", { hub: address, signal: abort.signal });
  abort.abort();
  assert.equal(await asked.catch(({ code }) => code), "aborted");
});
