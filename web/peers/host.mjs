// What the measurement needs from the machine: a file server that counts the
// library bytes it sends, and readings from /proc.
import { spawnSync } from "node:child_process";
import { createReadStream, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { cpus, loadavg } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
const LIBRARY = new Set([".js", ".mjs", ".wasm"]);

/** Serves `mounts` ({"/url/": folder}); `requested` holds the URLs asked for. */
export async function serve(mounts) {
  const requested = new Set();
  const locate = (url) => {
    const prefix = Object.keys(mounts).find((mount) => url.startsWith(mount));
    if (!prefix) return undefined;
    const file = path.join(mounts[prefix], path.normalize("/" + url.slice(prefix.length)));
    return statSync(file, { throwIfNoEntry: false })?.isFile() ? file : undefined;
  };
  const server = createServer((request, response) => {
    const url = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    // Without these two the page has no SharedArrayBuffer, so no threads.
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    if (url === "/") {
      response.setHeader("Content-Type", "text/html");
      response.end("<!doctype html><link rel=icon href=data:,><title>peers</title>");
      return;
    }
    const file = locate(url);
    if (!file) {
      response.writeHead(404).end();
      return;
    }
    requested.add(url);
    const size = statSync(file).size;
    response.setHeader("Content-Type", TYPES[path.extname(file)] ?? "application/octet-stream");
    response.setHeader("Accept-Ranges", "bytes");
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    response.setHeader("Content-Length", end - start + 1);
    if (range) response.setHeader("Content-Range", `bytes ${start}-${end}/${size}`);
    response.writeHead(range ? 206 : 200);
    if (request.method === "HEAD") response.end();
    else createReadStream(file, { start, end }).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

  return {
    origin: `http://localhost:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
    forget: () => requested.clear(),
    /** Each distinct file once, as a browser with a cache fetches it. */
    transferred() {
      const files = [...requested].map((url) => ({ url, bytes: readFileSync(locate(url)) }));
      const isLibrary = ({ url }) => LIBRARY.has(path.extname(url));
      const library = files.filter(isLibrary).map(({ url, bytes }) => ({
        url,
        raw: bytes.length,
        gzip: gzipSync(bytes, { level: 9 }).length,
      }));
      const sum = (list, key) => list.reduce((total, item) => total + item[key], 0);
      const rest = files.filter((file) => !isLibrary(file));
      return {
        libraryRaw: sum(library, "raw"),
        libraryGzip: sum(library, "gzip"),
        libraryFiles: library,
        modelBytes: rest.reduce((total, { bytes }) => total + bytes.length, 0),
        modelFiles: rest.map(({ url }) => url),
      };
    },
  };
}

function read(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function processes() {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const stat = read(`/proc/${pid}/stat`);
      if (!stat) return [];
      // The name may hold spaces and brackets: the fields start after the last ")".
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return [{ pid, parent: fields[1], ticks: Number(fields[11]) + Number(fields[12]) }];
    });
}

/** The browser started with this profile folder, and all its descendants. */
export function browserTree(profile) {
  const all = processes();
  const root = all.find(({ pid, parent }) => {
    const line = read(`/proc/${pid}/cmdline`);
    return parent === String(process.pid) && line.includes(`--user-data-dir=${profile}`);
  });
  const tree = root ? [root] : [];
  for (const member of tree) tree.push(...all.filter(({ parent }) => parent === member.pid));
  return tree;
}

/** What a process is to the browser: "renderer", "gpu-process", and others. */
const kind = ({ pid }) => /--type=([\w-]+)/.exec(read(`/proc/${pid}/cmdline`))?.[1];

const isHeavy = (member) => ["renderer", "gpu-process"].includes(kind(member));

/** Gives the GPU's process, whose work is the processor's where the GPU is software, the first core and the rest of the
 * browser the others: what a page's thread takes is then its own. Whether it could (util-linux's `taskset`). */
export function apart(profile) {
  const last = cpus().length - 1;
  if (last < 1) return false;
  return browserTree(profile).every((member) => {
    const cores = kind(member) === "gpu-process" ? "0" : `1-${last}`;
    return spawnSync("taskset", ["--all-tasks", "--cpu-list", "--pid", cores, member.pid]).status === 0;
  });
}

function kilobytes(pid, file, key) {
  return Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(read(`/proc/${pid}/${file}`))?.[1] ?? 0);
}

/** Sum over the renderer and GPU processes, in bytes. */
export function memory(profile, file, key) {
  const heavy = browserTree(profile).filter(isHeavy);
  return heavy.reduce((total, { pid }) => total + kilobytes(pid, file, key), 0) * 1024;
}

/** The largest summed PSS seen while `work` runs. */
export async function peakPss(profile, work) {
  let peak = 0;
  const sample = () => {
    peak = Math.max(peak, memory(profile, "smaps_rollup", "Pss"));
  };
  const timer = setInterval(sample, 250);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  sample();
  return peak;
}

function ticks(profile) {
  // user nice system idle iowait irq softirq steal; waiting is not work.
  const fields = /^cpu +(.*)/.exec(read("/proc/stat"))[1].split(" ").map(Number);
  const busy = fields[0] + fields[1] + fields[2] + fields[5] + fields[6] + fields[7];
  const ours = profile ? browserTree(profile).reduce((total, p) => total + p.ticks, 0) : 0;
  const self = processes().find(({ pid }) => pid === String(process.pid)).ticks;
  return { busy, ours: ours + self, at: performance.now() };
}

/** Cores used by the browser and by everything else since the call. */
export function cpuMeter(profile) {
  const before = ticks(profile);
  return () => {
    const after = ticks(profile);
    const cores = (n) => Number((n / 100 / ((after.at - before.at) / 1000)).toFixed(2));
    const ours = after.ours - before.ours;
    return { ours: cores(ours), others: cores(after.busy - before.busy - ours) };
  };
}

/** Looks for `lookMs` at what others do, until it `suffices` or patience ends; what they did at the last look. */
async function looked(patienceMs, lookMs, pauseMs, suffices) {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const stop = cpuMeter();
    await sleep(lookMs);
    const { others } = stop();
    const load1 = loadavg()[0];
    const isQuiet = suffices(others, load1);
    if (isQuiet || performance.now() > deadline) return { isQuiet, load1, otherCores: others };
    await sleep(pauseMs);
  }
}

/** Waits until the machine is quiet; what it was like when the wait ended. */
export const quiet = (patienceMs) => looked(patienceMs, 3000, 5000, (others, load1) => load1 < 1.5 && others < 0.3);

/** Waits until no other process works, however loaded the machine was a moment ago; cores others use when the wait ends. */
export const calm = async (patienceMs) => (await looked(patienceMs, 1500, 0, (others) => others < 0.2)).otherCores;
