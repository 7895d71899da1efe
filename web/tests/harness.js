// A browser and a server for the browser tests.
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { env } from "node:process";
import { after, afterEach, before, beforeEach } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { CACHE, CSP, serve } from "../serve.js";

export { CACHE };

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
export const TINY = join(ROOT, "tests", "fixtures", "tiny.gguf");
export const MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf";

const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-precise-memory-info",
  "--host-resolver-rules=MAP insecure.test 127.0.0.1", // a page that is neither https nor localhost
];

const executable = () => {
  const found = [
    env.BROOKLET_CHROMIUM,
    "/usr/bin/chromium",
    "/usr/bin/google-chrome",
    "/usr/bin/chromium-browser",
  ].find((path) => path && existsSync(path));
  if (!found) throw new Error("no Chromium was found: install it (Debian: chromium) or set BROOKLET_CHROMIUM to it");
  return found;
};

/** A browser with a profile of its own; `context` and `close` go with it. */
export async function browser({ webgpu = true, ...options } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "brooklet-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable(),
    args: [...ARGUMENTS, ...(webgpu ? ["--enable-unsafe-webgpu"] : [])],
    ...options,
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  };
  return { context, close };
}

/** The page's server, with its Content-Security-Policy in force, and `faults` in the way of what it sends. */
export async function site(before) {
  const folders = { "/": join(ROOT, "www"), "/models": CACHE, "/fixtures": dirname(TINY) };
  return serve({ folders, headers: { "content-security-policy": CSP }, before });
}

/** An empty page of that site, which the package can be imported from. */
export async function blank(context, url) {
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.route("**/blank.html", (route) =>
    route.fulfill({
      contentType: "text/html",
      headers: { "content-security-policy": CSP },
      body: "<!doctype html><title>t</title>",
    }),
  );
  await page.goto(`${url}/blank.html`);
  return Object.assign(page, { complaints });
}

export const sha256 = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** For a file of tests: a fresh page for each, with nothing kept. `inPage(work, argument)` runs in it with the package
 * at hand and turns what is thrown into `{ code, message }`; `faults(req, res)` may answer for the server. */
export function packagePages() {
  const here = { page: undefined, faults: undefined };
  let chrome, server;
  before(async () => {
    server = await site((req, res) => here.faults?.(req, res));
    chrome = await browser();
  });
  after(async () => {
    await chrome?.close();
    await server?.close();
  });
  beforeEach(async () => {
    here.faults = undefined;
    here.page = await blank(chrome.context, server.url);
    await here.page.evaluate(async () => {
      const { forgetModel, keptModels } = await import("/brooklet/index.js");
      for (const { url } of await keptModels()) await forgetModel(url);
    });
  });
  afterEach(() => here.page.close());
  here.inPage = (work, argument) => {
    const body = `(async (argument) => {
    const brooklet = await import("/brooklet/index.js");
    const TINY = "/fixtures/tiny.gguf";
    const collect = async (stream, most = Infinity) => {
      const pieces = [];
      for await (const piece of stream) if (pieces.push(piece) >= most) break;
      return pieces;
    };
    try {
      return await (${work})({ ...brooklet, TINY, collect }, argument);
    } catch (error) {
      return { code: error.code, message: error.message, name: error.name, ours: error instanceof brooklet.BrookletError };
    }
  })`;
    return here.page.evaluate(`${body}(${JSON.stringify(argument)})`);
  };
  return here;
}
