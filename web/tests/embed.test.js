// The packed package in somebody else's project, and what it costs to have it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { serve } from "../serve.js";
import { ALL, ROOT, TINY, blank, browser, needs, site } from "./harness.js";

const BIN = join(ROOT, "web", "node_modules", ".bin");
let chrome, project;

before(async () => {
  chrome = await browser();
  project = mkdtempSync(join(tmpdir(), "brooklet-embed-"));
  const [{ filename }] = JSON.parse(
    run("npm", ["pack", "--json", "--pack-destination", project], join(ROOT, "web", "pkg")),
  );
  writeFileSync(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }));
  run("npm", ["install", "--no-audit", "--no-fund", "--offline", `./${filename}`], project);
});
after(async () => {
  await chrome?.close();
  rmSync(project, { recursive: true, force: true });
});

const run = (command, args, cwd) =>
  execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

const MAIN = `import { Engine } from "brooklet";

const show = document.querySelector("pre")!;
const engine = await Engine.load({ model: "/tiny.gguf", tune: "off", onProgress: ({ loaded, total }) => (show.textContent = \`\${loaded} of \${total}\`) });
show.textContent = "";
const stream = engine.stream("Once upon a time", { temperature: 0, maxTokens: 20 });
for await (const { text } of stream) show.append(text);
document.title = \`\${stream.stats.generatedTokens} tokens\`;
await engine.unload();
`;

/** The text on a page whose script says in its title that it is done. */
async function streams(url) {
  const page = await chrome.context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(url);
  await page
    .waitForFunction(() => document.title === "20 tokens")
    .catch((error) => {
      throw new Error(`${error.message}\n${errors.join("\n")}`);
    });
  const text = await page.locator("pre").textContent();
  await page.close();
  return text;
}

test(
  "ten lines in an empty Vite project stream text, built, typed and in development",
  { timeout: 300_000 },
  async () => {
    mkdirSync(join(project, "public"));
    cpSync(TINY, join(project, "public", "tiny.gguf"));
    writeFileSync(
      join(project, "index.html"),
      '<!doctype html><title>t</title><pre></pre><script type="module" src="/main.ts"></script>',
    );
    writeFileSync(join(project, "main.ts"), MAIN);
    assert.ok(MAIN.trim().split("\n").length <= 10);

    const typed = [
      "--noEmit",
      "--strict",
      "--target",
      "esnext",
      "--module",
      "esnext",
      "--moduleResolution",
      "bundler",
      "--lib",
      "esnext,dom,dom.asynciterable",
      "main.ts",
    ];
    run(join(BIN, "tsc"), typed, project);
    writeFileSync(
      join(project, "wrong.ts"),
      'import { Engine } from "brooklet";\nawait Engine.load({ model: "a", window: "big" });\n',
    );
    assert.throws(
      () => run(join(BIN, "tsc"), [...typed.slice(0, -1), "wrong.ts"], project),
      ({ stdout }) => /'string' is not assignable to type 'number/.test(stdout),
    );

    run(join(BIN, "vite"), ["build", "--logLevel", "warn"], project);
    const host = await serve({ folders: { "/": join(project, "dist") } });
    const built = await streams(host.url);
    assert.ok(built.length > 5);
    await host.close();

    // The development server, as `npx vite` starts it, without a configuration.
    const { createServer } = await import("vite");
    const vite = await createServer({
      root: project,
      logLevel: "error",
      configFile: false,
      server: { port: 0, host: "127.0.0.1" },
    });
    await vite.listen();
    assert.equal(await streams(`http://localhost:${vite.httpServer.address().port}/`), built);
    await vite.close();
  },
);

test("esbuild's bundle streams with `assets`, and says what is missing without", async () => {
  const { build } = await import("esbuild");
  const out = join(project, "bundled");
  mkdirSync(out);
  cpSync(TINY, join(out, "tiny.gguf"));
  cpSync(join(project, "node_modules", "brooklet"), join(out, "engine"), { recursive: true });
  const host = await serve({ folders: { "/": out } });
  const bundle = async (name, options, format) => {
    const source = `import { Engine } from "brooklet";
      const show = document.querySelector("pre");
      const work = async () => {
        const engine = await Engine.load({ model: "/tiny.gguf", tune: "off", ...${JSON.stringify(options)} });
        const stream = engine.stream("Once upon a time", { temperature: 0, maxTokens: 20 });
        for await (const { text } of stream) show.append(text);
        await engine.unload();
      };
      work().catch((error) => show.append(error.code + ": " + error.message)).then(() => (document.title = "20 tokens"));`;
    writeFileSync(join(project, "entry.js"), source);
    const outfile = join(out, `${name}.js`);
    await build({
      absWorkingDir: project,
      entryPoints: ["entry.js"],
      bundle: true,
      outfile,
      ...(format && { format }),
      logLevel: "error",
    });
    const html = `<!doctype html><title>t</title><pre></pre><script type="module" src="/${name}.js"></script>`;
    writeFileSync(join(out, `${name}.html`), html);
    return streams(`${host.url}/${name}.html`);
  };
  const missing =
    /^internal: .*worker\.js.* could not be loaded.*; where a bundler.*the option assets names the folder/;
  assert.match(await bundle("none", {}, "esm"), missing);
  assert.match(await bundle("iife", {}), missing);
  assert.match(await bundle("wrong", { assets: "/nowhere" }, "esm"), /from http.*\/nowhere\/worker\.js; /);
  assert.match(
    await bundle("page", { worker: false }, "esm"),
    /brooklet_bg\.wasm could not be loaded.*the option assets/,
  );
  const text = await bundle("esm", { assets: "/engine" }, "esm");
  assert.ok(text.length > 5 && !text.startsWith("internal"), text);
  assert.equal(await bundle("plain", { assets: `${host.url}/engine/` }), text);
  assert.equal(await bundle("inside", { assets: "/engine/", worker: false }, "esm"), text);
  await host.close();
});

test("what the package exports is what its types say", async () => {
  for (const module of ["index", "webllm"]) {
    const types = readFileSync(join(ROOT, "web", "js", `${module}.d.ts`), "utf8");
    const names = types.matchAll(/^export (?:declare )?(?:class|function|const) (\w+)/gm);
    const declared = Array.from(names, ([, name]) => name);
    assert.deepEqual(Object.keys(await import(`../js/${module}.js`)).sort(), declared.sort());
  }
});

/** Bytes of a folder's files, compressed. */
const zipped = (folder, pattern) =>
  readdirSync(folder)
    .filter((name) => pattern.test(name))
    .map((name) => [name, gzipSync(readFileSync(join(folder, name)), { level: 9 }).length]);
const sum = (list) => list.reduce((all, [, size]) => all + size, 0);

/** What docs/web.md says, in bytes, and how far from it the truth is. */
function asPromised(row, bytes) {
  const [, thousands] = readFileSync(join(ROOT, "docs", "web.md"), "utf8").match(`${row}[^|]*\\| ([\\d,]+) \\|`);
  const said = 1000 * Number(thousands.replaceAll(",", ""));
  assert.ok(Math.abs(bytes - said) <= said / 10, `docs/web.md says ${said} bytes of ${row}, and there are ${bytes}`);
}

test("the page is as small as promised", () => {
  const PAGE = /\.(js|css|html|svg|webmanifest)$/;
  const page = sum(["www", "www/lib"].flatMap((folder) => zipped(join(ROOT, folder), PAGE)));
  console.log(`page: ${page} bytes gzipped`);
  assert.ok(page <= 90_000);
  asPromised("the page's own HTML", page);
});

test("the package is as small as promised", { skip: !ALL && "what is built for tests alone is not made small" }, () => {
  const parts = zipped(join(ROOT, "web", "pkg"), /\.(js|wasm)$/);
  console.log(`package: ${sum(parts)} bytes gzipped (${parts.map(([name, size]) => `${name} ${size}`).join(", ")})`);
  const templates = parts.filter(([name]) => name.startsWith("brooklet_template"));
  const grammars = parts.filter(([name]) => name.startsWith("brooklet_grammar"));
  const others = parts.filter((part) => !templates.includes(part) && !grammars.includes(part));
  assert.ok(sum(others) <= 1_500_000);
  asPromised("the package", sum(others));
  asPromised("what conversations load besides", sum(templates));
  asPromised("what outputs held to a grammar load besides", sum(grammars));
});

/** A leak that shows in a tenth of a long stream shows in a short one. */
const [LONG, GROWS] = ALL ? [10_000, 2 << 20] : [3000, 1 << 20];

test(
  `${LONG} tokens in one thread leave its memory as it was`,
  { timeout: 600_000, skip: needs("heap size") },
  async () => {
    const server = await site();
    const page = await blank(chrome.context, server.url);
    const session = await chrome.context.newCDPSession(page);
    // In the page itself: so the heap measured is that of all the package's code, the worker's half too.
    await page.evaluate(async () => {
      const { Engine } = await import("/brooklet/index.js");
      const engine = await Engine.load({ model: "/fixtures/tiny.gguf", window: 200, worker: false, tune: "off" });
      globalThis.stream = engine.stream("hello", { seed: 1 });
      globalThis.advance = async (to) => {
        while (stream.stats.generatedTokens < to) await stream.next();
        return stream.stats.wasmBytes;
      };
    });
    const measured = async (tokens) => {
      const wasm = await page.evaluate((tokens) => globalThis.advance(tokens), tokens);
      await session.send("HeapProfiler.collectGarbage");
      return { wasm, heap: (await session.send("Runtime.getHeapUsage")).usedSize };
    };
    const early = await measured(1000);
    const late = await measured(LONG);
    console.log(`heap ${early.heap} to ${late.heap}, wasm ${early.wasm} to ${late.wasm}`);
    assert.ok(late.heap - early.heap < GROWS);
    assert.equal(late.wasm, early.wasm);
    assert.deepEqual(page.complaints, []);
    await page.close();
    await server.close();
  },
);

test("a script from another site can be embedded", async () => {
  const [other, own] = [
    await serve({ folders: { "/": join(ROOT, "www") }, headers: { "access-control-allow-origin": "*" } }),
    await serve({ folders: { "/fixtures": dirname(TINY) } }),
  ];
  const page = await chrome.context.newPage();
  await page.goto(`${own.url}/fixtures/`);
  const count = await page.evaluate(async (other) => {
    const { Engine } = await import(`${other}/brooklet/index.js`);
    const engine = await Engine.load({ model: "/fixtures/tiny.gguf", tune: "off" });
    let count = 0;
    for await (const piece of engine.stream("a", { maxTokens: 5 })) count += piece.token >= 0;
    await engine.unload();
    return count;
  }, other.url);
  assert.equal(count, 5);
  await page.close();
  await other.close();
  await own.close();
});
