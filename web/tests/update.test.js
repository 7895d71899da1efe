// A newer version of the page, as a visitor gets it who has been here before.
import assert from "node:assert/strict";
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
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

const LATE = new Error("too late");
/** What a promise gives, or `LATE` after so many milliseconds. */
const within = async (ms, promise) => {
  const end = new AbortController();
  const late = delay(ms, undefined, end).then(() => Promise.reject(LATE));
  late.catch(() => {});
  return Promise.race([promise, late]).finally(() => end.abort());
};

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

    const before = await open();
    await before.evaluate(() => navigator.serviceWorker.ready);
    await reload(before);
    assert.deepEqual(await seen(before), all(1));
    assert.equal(await update(before), undefined, "there is nothing new");

    const old = readFileSync(join(www, "brooklet", "core.js"));
    const second = release(2);
    const missing = (req, res) => req.url.endsWith("/core.js") && res.writeHead(404).end("gone");
    const stale = (req, res) =>
      req.url.endsWith("/core.js") && res.writeHead(200, { "content-type": "text/javascript" }).end(old);
    for (const fault of [missing, stale]) {
      faults = fault;
      assert.equal(await update(before), "redundant");
      // Before a visit, with which the browser may look for a version again, and be in the middle of it.
      assert.deepEqual(await versions(before), [cacheOf(host, first)]);
      await reload(before);
      faults = undefined;
      assert.deepEqual(await seen(before), all(1));
    }

    assert.equal(await update(before), "installed");
    assert.deepEqual(await seen(before), all(1), "the visit goes on as it began");
    const beside = await open();
    assert.deepEqual(await seen(beside), all(1), "so does another beside it");
    await beside.close();
    await before.evaluate(() => (location.hash = "prompt=hello"));
    // It is opened by the version before, which gives way to the newer one; not while the other page is on its way out.
    const newest = async (page) =>
      (await versions(page)).join() === cacheOf(host, second) && (await seen(page)).join() === all(2).join();
    let page = before;
    let came = false;
    for (let look = 0; !came && look < 100; look += 1) {
      if (look % 10 === 0) await page.evaluate(() => location.reload()).catch(() => {});
      await delay(500);
      // The page may load itself anew in the middle of a look, and then be lost to the driver for good (by DevTools alone
      // it never was): a visitor's next page goes on.
      came = await within(5000, newest(page)).catch(async (error) => {
        if (error !== LATE) return false;
        await within(5000, page.close()).catch(() => {});
        page = await open("/#prompt=hello");
        return false;
      });
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
