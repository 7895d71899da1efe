// What run.sh has prepared, to every compiler that is here: `check.mjs FOLDER RAN [PAGE]`.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { argv, env, execPath, exit, stderr } from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { browser as chromium } from "../../web/chromium.js";
import { browser as firefox, hasFirefox } from "../../web/firefox.js";
import { CACHE, serve } from "../../web/serve.js";
import { HLSL, WGSL, truncated } from "./controls.mjs";
import { table, written } from "./page.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = join(HERE, "..", "..");
const [out, ranFile, page] = argv.slice(2);
const say = (text) => stderr.write(`portability: ${text}\n`);

const sorted = (key) => {
  const [name, ...overrides] = key.split(" ");
  return [name, ...overrides.sort()].join(" ");
};
/** To try the tool itself out: every so manieth kernel. */
const every = Number(env.BROOKLET_EVERY ?? 1);
const kernels = JSON.parse(readFileSync(join(out, "kernels.json"), "utf8")).filter((_, at) => at % every === 0);
for (const kernel of kernels) {
  kernel.key = sorted(kernel.key);
  kernel.code = readFileSync(join(out, `${kernel.stem}.wgsl`), "utf8");
}
const known = new Set(kernels.map(({ key }) => key));
say(`${new Set(kernels.map(({ name }) => name)).size} kernels, ${kernels.length} with their overrides`);

/** What a browser or a runtime makes pipelines of: each source once, with one of its sets of overrides, as its driver takes a
 * second for many of them and its compiler the same way through all. `BROOKLET_OVERRIDES=all`: with every set. */
const sources = new Set();
const once = kernels.filter(
  ({ name }) => env.BROOKLET_OVERRIDES === "all" || (!sources.has(name) && sources.add(name)),
);

/** By platform: `{ ran, compiled, translated: [keys], refused: { key: why }, unable: why others are missing }`. */
const resultsFile = join(out, "results.json");
const digest = createHash("sha256")
  .update(JSON.stringify(kernels.map(({ key, code }) => [key, code])))
  .digest("hex");
/** What an earlier run came to with the same kernels, before it was ended. */
const earlier = existsSync(resultsFile) ? JSON.parse(readFileSync(resultsFile, "utf8")) : {};
const platforms = earlier.digest === digest ? earlier.platforms : {};
const keep = () => writeFileSync(resultsFile, JSON.stringify({ digest, platforms }, null, 1));
const runsOf = (keys) => keys.map(sorted).filter((key) => known.has(key));

// Metal: naga has translated them all, or there would be no list.
platforms.Metal = { translated: kernels.map(({ key }) => key) };

function spirv() {
  if (platforms["spirv-val"]) return;
  if (spawnSync("spirv-val", ["--version"]).status !== 0) return say("spirv-val is not here: SPIR-V is not checked");
  const valid = (file, target) => spawnSync("spirv-val", ["--target-env", target, file], { encoding: "utf8" });
  const cut = join(out, "cut.spv");
  writeFileSync(cut, truncated(readFileSync(join(out, `${kernels[0].stem}.1_6.spv`))));
  if (valid(cut, "vulkan1.3").status === 0) throw new Error("spirv-val takes a module without its end");
  const result = { compiled: [], refused: {} };
  for (const { key, stem } of kernels) {
    const verdicts = [
      ["1_3", "vulkan1.1"],
      ["1_6", "vulkan1.3"],
    ].map(([version, target]) => valid(join(out, `${stem}.${version}.spv`), target));
    const bad = verdicts.find(({ status }) => status !== 0);
    if (bad) result.refused[key] = bad.stderr.slice(0, 600);
    else result.compiled.push(key);
  }
  platforms["spirv-val"] = result;
}

/** Gives `asked` (target and file) to one process of the compilers; `tell` hears each answer as it comes. */
function compilers(asked, tell) {
  const child = spawn(env.BROOKLET_WINE, ["compile.exe", "d3dcompiler_47.dll", "dxcompiler.dll"], {
    cwd: out,
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.end(asked.map((line) => `${line.join(" ")}\n`).join(""));
  createInterface({ input: child.stdout }).on("line", (line) => {
    const [verdict, target, file, ...said] = line.trim().split(" ");
    tell(`${target} ${file}`, { ok: verdict === "ok", said: said.join(" ") });
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) =>
      code === 0 ? resolve() : reject(new Error(`Windows' compilers ended with status ${code}`)),
    );
  });
}

/** The compilers take most of an hour for all of it, so what they said of a text is kept, by its hash, for the next run. */
async function windows() {
  if (!env.BROOKLET_WINE) return;
  const models = { DXC: ["cs_6_0", "cs_6_6"], FXC: ["cs_5_1"] };
  const targets = Object.values(models).flat();
  for (const [name, text] of Object.entries(HLSL)) writeFileSync(join(out, `${name}.hlsl`), text);
  const hash = (...parts) => parts.reduce((all, part) => all.update(part), createHash("sha256")).digest("hex");
  const by = hash(
    ...["d3dcompiler_47.dll", "dxcompiler.dll"].map((dll) => readFileSync(join(out, dll))),
    readFileSync(join(HERE, "compile.c")),
  );
  const kept = join(out, "..", "portability-windows.txt");
  const text = existsSync(kept) ? readFileSync(kept, "utf8") : "";
  if (!text.endsWith("\n")) appendFileSync(kept, "\n"); // a run was ended within a line
  const before = new Map(
    text
      .split("\n")
      .map((line) => line.split(" "))
      .filter(([compilers, , verdict]) => compilers === by && ["ok", "refused"].includes(verdict))
      .map(([, key, verdict, ...said]) => [key, { ok: verdict === "ok", said: said.join(" ") }]),
  );
  const verdicts = new Map();
  const keys = new Map();
  const asked = [];
  for (const target of targets) {
    for (const { stem } of kernels) {
      const file = `${stem}.${target.slice(3)}.hlsl`;
      if (!existsSync(join(out, file))) continue; // of subgroups, which that shader model has not
      const [line, key] = [`${target} ${file}`, hash(target, readFileSync(join(out, file)))];
      keys.set(line, key);
      if (before.has(key)) verdicts.set(line, before.get(key));
      else asked.push([target, file]);
    }
  }
  const processes = availableParallelism();
  say(`${asked.length} times HLSL to DXC and FXC, under wine; ${verdicts.size} answers are kept from before`);
  const controls = targets.flatMap((target) => ["good", "bad"].map((control) => [target, `${control}.hlsl`]));
  await Promise.all(
    Array.from({ length: processes }, async (_, process) => {
      const share = asked.filter((_, at) => at % processes === process);
      const said = new Map();
      await compilers([...controls, ...share], (line, verdict) => {
        said.set(line, verdict);
        if (!keys.has(line)) return;
        verdicts.set(line, verdict);
        appendFileSync(kept, `${by} ${keys.get(line)} ${verdict.ok ? "ok" : "refused"} ${verdict.said}\n`);
      });
      for (const target of targets) {
        if (!said.get(`${target} good.hlsl`)?.ok) throw new Error(`${target}: a shader that is right is refused`);
        if (said.get(`${target} bad.hlsl`).ok) throw new Error(`${target}: a shader that is wrong is taken`);
      }
    }),
  );
  for (const line of keys.keys()) if (!verdicts.has(line)) throw new Error(`no answer for ${line}`);
  for (const [compiler, targets] of Object.entries(models)) {
    const result = { compiled: [], refused: {} };
    for (const { key, stem } of kernels) {
      const found = targets.map((target) => verdicts.get(`${target} ${stem}.${target.slice(3)}.hlsl`));
      if (found.some((verdict) => !verdict)) continue;
      const bad = found.find(({ ok }) => !ok);
      if (bad) result.refused[key] = bad.said;
      else result.compiled.push(key);
    }
    platforms[compiler] = result;
  }
}

/** A driver's name in the table, whatever class of devices it stood in for. */
const driverOf = (line) =>
  line
    .replace(/ as gpu[\w-]*/, "")
    .replace(/^llvmpipe.*(Mesa [\d.]+).*/, "llvmpipe, $1")
    .replace(/^SwiftShader.*/, "SwiftShader");

function native() {
  const by = new Map();
  const text = existsSync(ranFile) ? readFileSync(ranFile, "utf8") : "";
  for (const line of text.split("\n").filter(Boolean)) {
    const [told, key] = line.split("\t");
    const driver = driverOf(told);
    if (!by.has(driver)) by.set(driver, new Set());
    by.get(driver).add(key);
  }
  for (const [driver, keys] of by) platforms[driver] = { ran: [...new Set(runsOf([...keys]))] };
}

async function implementations() {
  const folders = {
    "/": join(ROOT, "www"),
    "/models": CACHE,
    "/fixtures": join(ROOT, "tests", "fixtures"),
    "/check": HERE,
  };
  const server = await serve({
    folders,
    before: (req, res) =>
      req.url === "/blank.html" &&
      res.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>t</title>"),
  });
  const models = ["/fixtures/tiny.gguf", "/models/SmolLM2-135M-Instruct.Q4_1.gguf"].map((path) => server.url + path);
  const take = (name, { ran, ...made }) => {
    platforms[name] = { ...made, ran: [...new Set(runsOf(ran))] };
    say(
      `${name}: ${made.compiled.length} compiled, ${Object.keys(made.refused).length} refused, ${ran.length} run by engines`,
    );
    keep();
  };
  const browsers = { Chromium: chromium };
  if (hasFirefox()) browsers.Firefox = firefox;
  for (const [name, launch] of Object.entries(browsers)) {
    if (platforms[name]) continue;
    say(`${once.length} pipelines in ${name}`);
    const { context, close } = await launch();
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const made = await page.evaluate(
      async ([kernels, controls]) => (await import("/check/pipelines.mjs")).pipelines(kernels, controls),
      [once, WGSL],
    );
    const ran = await page.evaluate(async (models) => {
      const { Engine } = await import("/brooklet/index.js");
      return (await import("/check/pipelines.mjs")).engineRuns({ Engine, models });
    }, models);
    take(name, { ...made, ran });
    await close();
  }
  const list = join(out, "list.json");
  writeFileSync(list, JSON.stringify(once));
  const swiftshader = ["/usr/lib/chromium/vk_swiftshader_icd.json"].find(existsSync);
  const modules = join(ROOT, "web", "runtimes", "node_modules", ".bin", "deno");
  if (!existsSync(modules)) say("web/runtimes/node_modules is missing: Node and Deno are left out");
  const runtimes = existsSync(modules) && {
    Deno: [[modules, "run", "--allow-all"], {}],
    ...(swiftshader && {
      "Node on Dawn": [[execPath], { VK_DRIVER_FILES: swiftshader, VK_ICD_FILENAMES: swiftshader }],
    }),
  };
  for (const [name, [[program, ...options], environment]] of Object.entries(runtimes || {})) {
    if (platforms[name]) continue;
    say(`${once.length} pipelines in ${name}`);
    const child = spawn(program, [...options, join(HERE, "outside.mjs"), list, `${server.url}/brooklet/`, ...models], {
      env: { ...env, ...environment },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.on("data", (piece) => (text += piece));
    const code = await new Promise((resolve) => child.on("close", resolve));
    if (code !== 0) throw new Error(`${name} ended with status ${code}`);
    take(name, JSON.parse(text.trim().split("\n").at(-1)));
  }
  await server.close();
}

native();
spirv();
await windows();
keep();
await implementations();
const found = table(kernels, platforms);
writeFileSync(join(out, "table.md"), found);
if (page) writeFileSync(page, written(readFileSync(page, "utf8"), found));
say(`the table is in ${page ?? join(out, "table.md")}`);
const refused = Object.entries(platforms).flatMap(([name, { refused = {} }]) =>
  Object.entries(refused).map(([key, why]) => `${name} refuses ${key}: ${why}`),
);
refused.forEach(say);
exit(refused.length ? 1 : 0);
