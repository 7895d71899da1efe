// The page's stories side by side, as a visitor meets them.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { browser, site } from "./harness.js";
import { SHOTS, SIZES, axe, lookAtAll, openPage } from "./pages.js";

let chrome, server;
/** One page for both tests, with the engine in it: to load one takes a software GPU some seconds. */
let page;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  server = await site();
  chrome = await browser({ viewport: SIZES.wide, permissions: ["clipboard-read", "clipboard-write"] });
});
after(async () => {
  await chrome?.close();
  await server?.close();
});

const link = (more = {}) => {
  const model = `${server.url}/fixtures/tiny.gguf`;
  return `/#beside&${new URLSearchParams({ prompt: "hello there", seed: 5, model, window: 40, temperature: 1, stop: "", ...more })}`;
};

const state = (page, name) => page.waitForSelector(`html[data-beside=${name}]`);
const number = (text) => Number(text.replace(/\D/g, ""));
const shown = (page) => page.locator(".story:visible");
const each = (page, part) => shown(page).locator(`.${part}`).allTextContents();
const all = async (page, what) => number(await page.t(`beside-${what}`).textContent());
/** Waits until every story that is shown has so many tokens. */
const reach = (page, n) =>
  page.waitForFunction((n) => {
    const cards = [...document.querySelectorAll(".story:not([hidden])")];
    const tokens = (card) => Number(card.querySelector(".story-tokens").textContent.replace(/\D/g, ""));
    return cards.length > 0 && cards.every((card) => tokens(card) >= n);
  }, n);
const begin = async (page) => {
  await page.t("beside-start").click();
  await state(page, "streaming");
};

test("four stories of one prompt go on at the same time, pause and stop", async () => {
  page = await openPage(chrome.context, server.url + link());
  assert.equal(await page.locator("#way-beside").getAttribute("aria-current"), "page");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.beside), "idle", "a link begins nothing");
  assert.equal(await page.t("beside-prompt").inputValue(), "hello there");
  await page.evaluate(() => {
    globalThis.heard = [];
    const live = document.getElementById("beside-live");
    new MutationObserver(() => globalThis.heard.push(live.textContent)).observe(live, { childList: true });
  });
  await begin(page);
  await reach(page, 70);
  // The focus was on a button that is gone.
  assert.equal(await page.evaluate(() => document.activeElement.id), "beside-pause");
  await page.keyboard.press("Enter");
  await state(page, "paused");
  const seen = [await all(page, "tokens")];
  do {
    await page.waitForTimeout(700);
    seen.push(await all(page, "tokens"));
  } while (seen.at(-1) !== seen.at(-2) && seen.length < 10);
  assert.equal(seen.at(-1), seen.at(-2), "a pause is a pause");
  assert.equal(await shown(page).count(), 4);
  const texts = await each(page, "flow");
  for (const text of texts) assert.match(text, /^hello there/);
  assert.equal(new Set(texts).size, 4, "no two are alike");
  assert.deepEqual(await each(page, "story-seed"), ["seed 5", "seed 6", "seed 7", "seed 8"]);
  const tokens = (await each(page, "story-tokens")).map(number);
  assert.ok(Math.min(...tokens) * 2 > Math.max(...tokens), `none waits for another to end: ${tokens}`);
  const forgotten = (await each(page, "story-forgotten")).map(number);
  assert.ok(Math.min(...forgotten) > 0);
  assert.equal(
    await all(page, "forgotten"),
    forgotten.reduce((a, b) => a + b),
  );
  assert.match(await page.t("beside-gpu-bytes").textContent(), /^\d+(\.\d)? MB$/);
  assert.match(
    await page.locator(".story canvas").first().getAttribute("aria-label"),
    /story 1: \d+ tokens, \d+ of them/,
  );
  await lookAtAll(page, "beside");
  await page.setViewportSize(SIZES.wide);
  await page.t("beside-pause").click();
  await reach(page, Math.max(...tokens) + 20);
  assert.ok((await all(page, "forgotten")) > forgotten.reduce((a, b) => a + b), "what is forgotten grows");
  await page.t("beside-stop").click();
  await state(page, "stopped");
  const longer = await each(page, "flow");
  longer.forEach((text, n) => assert.ok(text.startsWith(texts[n].slice(0, 60)), "what was there stays"));
  const second = shown(page).nth(1).getByRole("button", { name: "Copy" });
  await second.click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(copied.length > 100 && copied.startsWith("hello there"));
  const heard = await page.evaluate(() => globalThis.heard);
  assert.match(heard[0], /^4 stories have begun/);
  assert.match(heard.at(-1), /^The stories have ended: [\d,]+ tokens in all/);
  assert.ok(heard.length <= 4, "a screen reader hears of beginning and end, not of tokens");
  assert.deepEqual(page.complaints, []);
});

test("the same seeds again, one is kept, a link, and what another way leaves of it", async () => {
  const texts = await each(page, "flow");
  await begin(page); // on the engine that is there
  await reach(page, 70);
  const again = await each(page, "flow");
  again.forEach((text, n) => assert.equal(text.slice(0, 60), texts[n].slice(0, 60)));
  await shown(page).nth(1).getByRole("button", { name: "Keep this one" }).click();
  assert.deepEqual(await shown(page).locator("h2").allTextContents(), ["Story 2"]);
  const alone = number((await each(page, "story-tokens"))[0]);
  await reach(page, alone + 40);
  await axe(page, "one that was kept");
  // Another way ends it, and has the engine for itself.
  await page.t("way-stream").click();
  await state(page, "stopped");
  await page.t("start").click();
  await page.waitForFunction(() => Number(document.getElementById("tokens").textContent) > 20);
  await page.t("way-beside").click();
  await page.waitForSelector("html[data-state=stopped]");
  assert.equal(await shown(page).count(), 1, "what was written stays");
  await page.t("stories").selectOption("3");
  await page.t("beside-link").click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /#beside=&prompt=hello\+there&stories=3&seed=5&temperature=1&window=40&model=http/);
  assert.deepEqual(page.complaints, []);
  // A model that is none is said, and no text is lost by it.
  const before = await each(page, "flow");
  const wrong = link({ stories: 2, model: `${server.url}/nothing.gguf` });
  await page.evaluate((hash) => (location.hash = hash), wrong.slice(1));
  await page.waitForFunction(() => document.getElementById("stories").value === "2");
  await page.t("beside-start").click();
  await state(page, "error");
  assert.match(await page.t("error").textContent(), /404/);
  assert.deepEqual(await each(page, "flow"), before);
});
