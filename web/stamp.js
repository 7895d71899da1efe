// `node web/stamp.js [WWW]`: writes WWW/sw.js, the service worker with a list of the page's files and their sha256. Its
// version is the hash of all that, so that it changes with any file and never without one.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const PAGE = /\.(html|js|css|svg|webmanifest|wasm)$/;

/** What of the package the page does not use, and need not have without a network. */
export const UNUSED = /^brooklet_grammar/;

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** The version that `www` has from now on. */
export function stamp(www) {
  const files = ["", "brooklet/", "lib/"].flatMap((folder) =>
    readdirSync(join(www, folder))
      .filter((name) => PAGE.test(name) && !UNUSED.test(name) && folder + name !== "sw.js")
      .map((name) => folder + name),
  );
  const lines = files.sort().map((file) => {
    const address = file === "index.html" ? "./" : file;
    return `  ${JSON.stringify(address)}: "${sha256(readFileSync(join(www, file)))}",\n`;
  });
  const source = readFileSync(join(HERE, "sw.js"), "utf8");
  const version = sha256(source + lines.join("")).slice(0, 16);
  const stamped = source
    .replace('const VERSION = "";', `const VERSION = "${version}";`)
    .replace("const FILES = {};", `const FILES = {\n${lines.join("")}};`);
  writeFileSync(join(www, "sw.js"), stamped);
  return version;
}

if (argv[1] === fileURLToPath(import.meta.url)) stamp(argv[2] ?? join(HERE, "..", "www"));
