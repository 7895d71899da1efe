// A server's engine: the package connected to it, and the page that it serves. On the tiny model, which is told to speak ChatML.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { env } from "node:process";
import { join } from "node:path";
import { ROOT, TINY, browser, complaintsOf } from "./harness.js";

const BINARY = env.BROOKLET_BINARY ?? join(ROOT, "target", "debug", "brooklet");
const KEY = "a key of the test";

let chrome, server;

/** A server, once it can be asked. */
async function start(...args) {
  const usual = ["serve", "-m", TINY, "--tune", "off", "--port", "0", "--chat-template", "chatml"];
  const process = spawn(BINARY, [...usual, ...args], { stdio: ["ignore", "ignore", "pipe"] });
  let url;
  for await (const line of createInterface({ input: process.stderr })) {
    url ??= /http:\/\/\S+/.exec(line)?.[0];
    if (line.includes("streams")) break;
  }
  process.stderr.resume();
  return { url, stop: () => process.kill("SIGKILL") };
}

before(async () => {
  [server, chrome] = await Promise.all([
    start("--streams", "4", "--window", "180", "--sinks", "60", "--api-key", KEY),
    browser(),
  ]);
});
after(async () => {
  await chrome?.close();
  server?.stop();
});

/** When the page has its stream, and says so. */
const connected = (page) => page.locator("#model-now .note", { hasText: ", on " }).waitFor({ state: "attached" });

/** The page, connected. */
async function open(hash) {
  const page = await chrome.context.newPage();
  const complaints = complaintsOf(page);
  await page.goto(`${server.url}/#key=${encodeURIComponent(KEY)}${hash}`);
  await connected(page);
  return Object.assign(page, { complaints, t: (id) => page.getByTestId(id) });
}

test("the package drives a server as it drives its own engine", async () => {
  const page = await chrome.context.newPage();
  await page.goto(`${server.url}/icon.svg`);
  const told = await page.evaluate(
    async ({ url, key }) => {
      const { Engine } = await import(`${url}/brooklet/index.js`);
      const wrong = await Engine.connect(url, { key: "another" }).catch(({ code, message }) => ({ code, message }));
      const nobody = await Engine.connect("http://127.0.0.1:1").catch(({ code, message }) => ({ code, message }));
      const engine = await Engine.connect(`${url}/v1/`, { key, streams: 3 });
      const read = async (one, prompt, maxTokens) => {
        const tokens = [];
        for await (const { token } of one.stream(prompt, { temperature: 0, maxTokens })) tokens.push(token);
        return tokens;
      };
      const whole = await read(engine, "the rain", 12);
      await engine.reset();
      await engine.feed("the rain");
      const forks = [await engine.fork(), await engine.fork()];
      const forked = await Promise.all([engine, ...forks].map((one) => read(one, "", 12)));
      // Left early, what nobody took has never been there.
      await engine.reset();
      let first;
      for await (const { token } of engine.stream("the rain", { temperature: 0 })) {
        first = token;
        break;
      }
      const rest = await read(engine, "", 11);
      const aborted = await engine
        .feed("the rain ".repeat(9000), { signal: AbortSignal.timeout(100) })
        .catch(({ code }) => code);
      const chat = engine.conversation({ system: "Be terse." });
      for await (const _ of chat.send("Hi", { maxTokens: 5, temperature: 0 }));
      const { messages } = chat;
      const seen = await chat.window();
      const refused = await engine.reset({ window: 5 }).catch(({ code, message }) => ({ code, message }));
      const { info } = engine;
      await engine.unload();
      const after = await engine.feed("x").catch(({ code }) => code);
      return { wrong, nobody, whole, forked, first, rest, aborted, messages, seen, refused, info, after };
    },
    { url: server.url, key: KEY },
  );
  assert.deepEqual([told.wrong.code, told.nobody.code], ["bad-option", "network"]);
  assert.match(told.nobody.message, /127\.0\.0\.1:1.*brooklet serve/);
  assert.equal(told.whole.length, 12);
  assert.deepEqual(told.forked, [told.whole, told.whole, told.whole]);
  assert.deepEqual([told.first, ...told.rest], told.whole);
  assert.equal(told.aborted, "aborted");
  assert.deepEqual(
    told.messages.map(({ role }) => role),
    ["user", "assistant"],
  );
  assert.equal(told.seen.pinned, 60);
  assert.match(told.refused.message, /window 5: .*180/);
  assert.deepEqual(told.info.server.streams, 4);
  assert.equal(told.after, "bad-option");
  await page.close();
});

test("the page of a server talks, streams, and tells stories side by side", async () => {
  const page = await open("");
  assert.equal(new URL(page.url()).hash.includes("key"), false, "the address does not keep the key");
  assert.match(await page.locator("#model-now").textContent(), /, on /);
  assert.equal(await page.t("window").inputValue(), "180");
  assert.ok(await page.t("window").isDisabled());
  assert.equal(await page.t("catalogue").isVisible(), false);
  await page.t("say").fill("Hello");
  await page.t("say").press("Enter");
  await page.waitForFunction(() => document.documentElement.dataset.chat === "idle");
  await page.getByTestId("way-stream").click();
  await page.t("start").click();
  await page.waitForFunction(() => Number(document.getElementById("forgotten").textContent.replace(/\D/g, "")) > 10);
  await page.t("sinks-toggle").click();
  await page.t("stop").click();
  await page.waitForSelector('html[data-state="stopped"]');
  await page.getByTestId("way-beside").click();
  await page.t("beside-start").click();
  await page.waitForFunction(
    () => Number(document.getElementById("beside-tokens").textContent.replace(/\D/g, "")) > 100,
  );
  await page.t("beside-stop").click();
  await page.waitForSelector('html[data-beside="stopped"]');
  // Loaded anew it has the key still, and another stream.
  await page.reload();
  await connected(page);
  assert.deepEqual(page.complaints, []);
  await page.close();
});

test("a page whose server has gone says so", async () => {
  const own = await start("--streams", "1");
  const page = await chrome.context.newPage();
  await page.goto(`${own.url}/#stream`);
  await connected(page);
  await page.getByTestId("start").click();
  await page.waitForSelector('html[data-state="streaming"]');
  own.stop();
  await page.waitForSelector('#error[data-code="network"]:not([hidden])');
  assert.match(await page.getByTestId("error").textContent(), /was lost/);
  await page.close();
});
