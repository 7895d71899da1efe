// A newer version of the page, as a visitor gets it who has been here before.
import assert from "node:assert/strict";
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../serve.js";
import { stamp } from "../stamp.js";
import { ROOT, browser, needs } from "./harness.js";

/** Files of the page and of the engine that say which version they are of. */
const MARKED = ["main.js", "style.css", "brooklet/core.js"];
let chrome, www;

before(async () => {
  chrome = await browser();
  www = mkdtempSync(join(tmpdir(), "brooklet-page-"));
  cpSync(join(ROOT, "www"), www, { recursive: true, filter: (path) => basename(path) !== "models" });
  truncateSync(join(www, "brooklet", "brooklet_bg.wasm"), 1000); // nothing is computed here
});
after(async () => {
  await chrome?.close();
  rmSync(www, { recursive: true, force: true });
});

const cacheOf = ({ url }, version, path = "/") => `brooklet-page ${url}${path} ${version}`;

const release = (n) => {
  for (const file of MARKED) appendFileSync(join(www, file), `\n/* release ${n} */`);
  return stamp(www);
};

test("a version is its files: the same for the same, another for any other", () => {
  const [first, again] = [stamp(www), stamp(www)];
  assert.equal(first, again);
  const versions = new Set([first, release(0)]);
  appendFileSync(join(www, "brooklet", "brooklet_bg.wasm"), "x");
  versions.add(stamp(www));
  assert.equal(versions.size, 3);
});

test(
  "a newer version of the page comes in whole or not at all, and never in the middle of a visit",
  { skip: needs("updates when asked") },
  async (t) => {
    const first = release(1);
    let faults;
    const host = await serve({ folders: { "/": www }, before: (req, res) => faults?.(req, res) });
    t.after(() => host.close());
    const open = async (path = "/") => {
      const page = await chrome.context.newPage();
      await page.goto(host.url + path);
      await page.waitForSelector("html[data-ready], html[data-refused]");
      return page;
    };
    /** The release that each file is of, as the page gets it. */
    const seen = (page) =>
      page.evaluate(
        (files) =>
          Promise.all(files.map(async (file) => (await (await fetch(file)).text()).match(/release \d+ \*\/$/)?.[0])),
        MARKED,
      );
    const all = (n) => MARKED.map(() => `release ${n} */`);
    const versions = (page) => page.evaluate(() => caches.keys());
    /** What became of the version that is there now. */
    const update = (page) =>
      page.evaluate(async () => {
        const registration = await navigator.serviceWorker.getRegistration();
        await registration.update();
        const worker = registration.installing ?? registration.waiting;
        while (worker?.state === "installing")
          await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
        return worker?.state;
      });
    const reload = async (page) => {
      await page.reload();
      await page.waitForSelector("html[data-ready], html[data-refused]");
    };

    const page = await open();
    await page.evaluate(() => navigator.serviceWorker.ready);
    await reload(page);
    assert.deepEqual(await seen(page), all(1));
    assert.equal(await update(page), undefined, "there is nothing new");

    const old = readFileSync(join(www, "brooklet", "core.js"));
    const second = release(2);
    const missing = (req, res) => req.url.endsWith("/core.js") && res.writeHead(404).end("gone");
    const stale = (req, res) =>
      req.url.endsWith("/core.js") && res.writeHead(200, { "content-type": "text/javascript" }).end(old);
    for (const fault of [missing, stale]) {
      faults = fault;
      assert.equal(await update(page), "redundant");
      await reload(page);
      faults = undefined;
      assert.deepEqual(await seen(page), all(1));
      assert.deepEqual(await versions(page), [cacheOf(host, first)]);
    }

    assert.equal(await update(page), "installed");
    assert.deepEqual(await seen(page), all(1), "the visit goes on as it began");
    const other = await open();
    assert.deepEqual(await seen(other), all(1), "so does another beside it");
    await other.close();
    await page.evaluate(() => (location.hash = "prompt=hello"));
    // It is opened by the version before, which gives way to the newer one; not while the other page is on its way out.
    const end = Date.now() + 60_000;
    const newest = async () =>
      (await versions(page)).join() === cacheOf(host, second) && (await seen(page)).join() === all(2).join();
    let came = false;
    for (let look = 0; !came && Date.now() < end; look += 1) {
      // The page may load itself anew in the middle of a look: then it is looked at again.
      if (look % 10 === 0) await page.evaluate(() => location.reload()).catch(() => {});
      await page.waitForTimeout(500);
      came = await newest().catch(() => false);
    }
    assert.ok(came, "the newer version never came");
    await page.waitForSelector("html[data-ready], html[data-refused]");
    assert.deepEqual(await seen(page), all(2));
    assert.equal(await page.evaluate(() => location.hash), "#prompt=hello");
    await host.close();
    await reload(page);
    assert.deepEqual(await seen(page), all(2), "and without a network");
    await page.close();
  },
);

test("two pages of one origin keep their own versions", async (t) => {
  const version = release(3);
  const host = await serve({ folders: { "/one": www, "/two": www } });
  t.after(() => host.close());
  const page = await chrome.context.newPage();
  for (const path of ["/one/", "/two/"]) {
    await page.goto(host.url + path);
    await page.waitForSelector("html[data-ready], html[data-refused]");
    await page.evaluate(() => navigator.serviceWorker.ready);
  }
  const kept = () => page.evaluate(() => caches.keys());
  const both = ["/one/", "/two/"].map((path) => cacheOf(host, version, path));
  assert.deepEqual((await kept()).sort(), both);
  await page.close();
});
