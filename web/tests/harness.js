// A browser and a server for the browser tests.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, beforeEach } from "node:test";
import { env, pid } from "node:process";
import { fileURLToPath } from "node:url";
import { browser as chromium } from "../chromium.js";
import { browser as firefox } from "../firefox.js";
import { CACHE, CSP, serve } from "../serve.js";

export { CACHE };

/** Whether the tests run in Firefox, as `BROOKLET_BROWSER=firefox` asks; in Chromium otherwise. */
export const FIREFOX = env.BROOKLET_BROWSER === "firefox";

/** What a test may need and Firefox, or the protocol it is driven by, has not: why the test is left out there. */
const LACKING = {
  "heap size": "WebDriver BiDi neither collects garbage nor tells the size of a heap; the code measured is the same",
  "pipelines ahead": "it would compile twice what is asked for in two ways, so nothing is (src/gpu/ahead.rs)",
  download: "its WebDriver BiDi tells of no download that a page makes itself",
  "updates when asked": "it looks for a newer service worker after every visit, and a test cannot say when one comes",
  quota: "WebDriver BiDi sets no quota for an origin",
};

/** For a test's `skip`: the reason, where it cannot run. */
export function needs(what) {
  if (!(what in LACKING)) throw new Error(`nothing is known of ${what}`);
  return FIREFOX && `in Firefox: ${LACKING[what]}`;
}

/** Of a style that the driver puts into a page of Firefox for a screenshot, and the page's policy keeps out. */
const DRIVERS_STYLE = `sha256-${createHash("sha256").update("body {}").digest("base64")}`;

/** What a page complains of from now on. */
export function complaintsOf(page) {
  const complaints = [];
  const note = (text) => (FIREFOX && text.includes(DRIVERS_STYLE)) || complaints.push(text);
  page.on("pageerror", (error) => note(String(error)));
  page.on("console", (message) => message.type() === "error" && note(message.text()));
  return complaints;
}

/** Whether `./build.sh test --all` asks: with every kernel as a pipeline, long streams, and the package as it is released. */
export const ALL = env.BROOKLET_ALL === "1";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
export const TINY = join(ROOT, "tests", "fixtures", "tiny.gguf");
export const MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf";

const BINARY = env.BROOKLET_BINARY ?? join(ROOT, "target", "debug", "brooklet");
const STREAMS = join(ROOT, "target", "native-streams");

/** A browser for a test; `context` and `close` go with it. */
export async function browser(options) {
  const args = [
    "--enable-precise-memory-info",
    "--host-resolver-rules=MAP insecure.test 127.0.0.1", // a page that is neither https nor localhost
  ];
  // Workgroup memory that is not zeroed first, as in the native engine: SwiftShader compiles kernels in half the time.
  if (!ALL) args.push("--enable-dawn-features=disable_workgroup_init");
  const driven = await (FIREFOX ? firefox(options) : chromium({ args, ...options }));
  driven.context.setDefaultTimeout(120_000); // the GPU is software, and other tests run beside
  return driven;
}

/** The page's server, with its Content-Security-Policy in force, and `faults` in the way of what it sends. */
export async function site(before) {
  const folders = { "/": join(ROOT, "www"), "/models": CACHE, "/fixtures": dirname(TINY) };
  return serve({ folders, headers: { "content-security-policy": CSP }, before });
}

/** An empty page of that site, which the package can be imported from. */
export async function blank(context, url) {
  const page = await context.newPage();
  const complaints = complaintsOf(page);
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

/** A worker that reads a model as the engine does, in order and in pieces, with no GPU: what a test of downloads needs. */
const READER = `
import init, { Hasher } from "/brooklet/brooklet.js";
import { openModel } from "/brooklet/source.js";

const PIECE = 50_000;

self.onmessage = async ({ data: { model, abortAfter, cache = true, sha256 } }) => {
  const [warnings, from, stages] = [[], new Set(), new Set()];
  const abort = new AbortController();
  const report = (progress) => {
    from.add(progress.from);
    stages.add(progress.stage);
    if (progress.loaded > abortAfter) abort.abort();
  };
  const warn = (warning) => warnings.push(warning);
  let result;
  try {
    await init();
    const options = { keep: cache, sha256, signal: abort.signal, report, warn, hasher: () => new Hasher() };
    const file = await openModel(model, options);
    try {
      const hash = new Hasher();
      for (let at = 0; at < file.length; at += PIECE) {
        const end = Math.min(at + PIECE, file.length);
        hash.update(await file.read(at, end));
        file.release(end);
      }
      result = { read: hash.digest(), kept: await file.finish() };
    } finally {
      file.close();
    }
  } catch ({ code, message }) {
    result = { code, message };
  }
  self.postMessage({ ...result, warnings, from: [...from], stages: [...stages] });
};
`;

/** Answers for `/reader.js`. */
export function reader(req, res) {
  if (req.url !== "/reader.js") return false;
  res.writeHead(200, { "content-type": "text/javascript" }).end(READER);
  return true;
}

/** What became of a model that the reader has read. */
export const readModel = (page, model, options = {}) =>
  page.evaluate(
    async (request) => {
      const { keptModels } = await import("/brooklet/index.js");
      const worker = new Worker("/reader.js", { type: "module" });
      const result = await new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message || "the reader could not be loaded"));
        worker.postMessage(request);
      });
      worker.terminate();
      return { ...result, models: await keptModels() };
    },
    { model, ...options },
  );

export const sha256 = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** A worker for one engine after another, all of them on one GPU device with what is compiled for it already: a load takes
 * a software GPU some seconds otherwise. Not for a test of the device, or of what an engine leaves behind. */
const WARM = `
import "/brooklet/worker.js";

const { requestDevice } = GPUAdapter.prototype;
let device;
GPUAdapter.prototype.requestDevice = function (descriptor) {
  return (device ??= requestDevice.call(this, descriptor));
};
GPUDevice.prototype.destroy = () => {};
const held = [];
for (const method of ["createComputePipeline", "createComputePipelineAsync"]) {
  const create = GPUDevice.prototype[method];
  GPUDevice.prototype[method] = function (descriptor) {
    const made = create.call(this, descriptor);
    held.push(made); // the browser finds what somebody holds
    return made;
  };
}
`;

/** Answers for `/warm.js`. */
export function warm(req, res) {
  if (req.url !== "/warm.js") return false;
  res.writeHead(200, { "content-type": "text/javascript" }).end(WARM);
  return true;
}

/** SwiftShader as the loader of Vulkan finds it, for programs beside the browser's. */
export const SWIFTSHADER = [
  "/usr/lib/chromium/vk_swiftshader_icd.json",
  "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
  "/opt/google/chrome/vk_swiftshader_icd.json",
].find(existsSync);

/** The environment of such a program. */
export function withSwiftShader() {
  if (!SWIFTSHADER) throw new Error("this needs SwiftShader's manifest (Debian: chromium-common)");
  return { ...env, VK_DRIVER_FILES: SWIFTSHADER, VK_ICD_FILENAMES: SWIFTSHADER };
}

/** The lines of JSON that the native binary writes, greedy on SwiftShader. */
function native(args, input = "") {
  const options = ["--temp", "0", "--json", "--adapter", "SwiftShader", "--quiet"];
  const output = execFileSync(BINARY, [...args, ...options], { env: withSwiftShader(), encoding: "utf8", input });
  return output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** What the native binary answers to messages, a line each: `{ text, turn }` each. */
export function nativeChat(args, messages) {
  const answers = [];
  let text = "";
  for (const line of native(["chat", ...args], messages.join("\n"))) {
    if (!line.turn) text += line.text;
    else {
      answers.push({ text, turn: line.turn });
      text = "";
    }
  }
  return answers;
}

/** What the native binary streams greedily on SwiftShader: `{ token, text }` each, and its summary. Several files of tests
 * ask for the same, which takes half a minute: it is kept for as long as the binary, the model and the driver are these. */
export function nativeStream(model, prompt, tokens, args = []) {
  const { VK_DRIVER_FILES: driver } = withSwiftShader();
  const stamps = [BINARY, model, driver].map((path) => [path, statSync(path).size, statSync(path).mtimeMs]);
  const name = createHash("sha256")
    .update(JSON.stringify([stamps, prompt, tokens, args]))
    .digest("hex");
  const kept = join(STREAMS, `${name}.json`);
  if (existsSync(kept)) return JSON.parse(readFileSync(kept, "utf8"));
  const pieces = native(["run", "-m", model, "-p", prompt, "-n", String(tokens), ...args]);
  const { summary } = pieces.pop();
  if (!/SwiftShader/.test(summary.adapter)) throw new Error(`the native run was on ${summary.adapter}`);
  mkdirSync(STREAMS, { recursive: true });
  writeFileSync(`${kept}.${pid}`, JSON.stringify({ pieces, summary }));
  renameSync(`${kept}.${pid}`, kept);
  return { pieces, summary };
}

/** What `inPage` gives to its work, in the page. */
const TOOLS = `
globalThis.tools ??= (async () => {
  const brooklet = await import("/brooklet/index.js");
  const TINY = "/fixtures/tiny.gguf";
  const collect = async (stream, most = Infinity) => {
    const pieces = [];
    for await (const piece of stream) if (pieces.push(piece) >= most) break;
    return pieces;
  };
  /** The whole text of a stream or an answer, its tokens, and why it ended. */
  const said = async (stream) => {
    const pieces = await collect(stream);
    const ids = pieces.map(({ token }) => token).filter((token) => token >= 0);
    const { stopReason: ended, generatedTokens: tokens } = stream.stats;
    return { text: pieces.map(({ text }) => text).join(""), ids, ended, tokens };
  };
  const warmWorker = () => new Worker("/warm.js", { type: "module" });
  let worker, engine;
  const load = async (options) => {
    await engine?.unload();
    engine = undefined;
    worker ??= warmWorker();
    return (engine = await brooklet.Engine.load({ model: TINY, tune: "off", worker, ...options }));
  };
  return { ...brooklet, TINY, collect, said, load, warmWorker };
})()`;

/** For a file of tests: a page, with nothing kept in it before each test. `inPage(work, argument)` runs in it with the
 * package at hand and turns what is thrown into `{ code, message }`; there `load(options)` is `Engine.load` with the tiny
 * model, in a warm worker that takes one engine after another. `faults(req, res)` may answer for the server. */
export function packagePages() {
  const here = { page: undefined, faults: undefined, url: undefined, context: undefined };
  let chrome, server;
  before(async () => {
    server = await site((req, res) => warm(req, res) || here.faults?.(req, res));
    here.url = server.url;
    chrome = await browser();
    here.context = chrome.context;
    here.page = await blank(chrome.context, server.url);
  });
  after(async () => {
    await chrome?.close();
    await server?.close();
  });
  beforeEach(async () => {
    here.faults = undefined;
    await here.page.evaluate(async () => {
      const { forgetModel, keptModels } = await import("/brooklet/index.js");
      for (const { url } of await keptModels()) await forgetModel(url);
      localStorage.clear();
    });
  });
  here.inPage = (work, argument) => {
    const body = `(async (argument) => {
    const tools = await (${TOOLS});
    try {
      return await (${work})(tools, argument);
    } catch (error) {
      return { code: error.code, message: error.message, name: error.name, ours: error instanceof tools.BrookletError };
    }
  })`;
    return here.page.evaluate(`${body}(${JSON.stringify(argument)})`);
  };
  return here;
}
