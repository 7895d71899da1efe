// What `hf:USER/REPO[:QUANT]` means: addresses, asked of the hub. The same choice as the native program's.
import { BadOptionError, NetworkError, aborted } from "./errors.js";

const HUB = "https://huggingface.co";
/** The types of weights that are taken where none is named, as llama.cpp takes them. */
const PREFERRED = ["Q4_K_M", "Q8_0"];
/** Pages of a list of files; each has a thousand. */
const MOST_PAGES = 100;

const SHARD = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;
const TYPE = /^(IQ|TQ|Q|BF|F|MXFP|NVFP)\d[0-9A-Z_]*$/;
const PLAIN = /^(?!\.)[^\p{Cc}\\/:*?"<>|]*[^\p{Cc}\\/:*?"<>|. ]$/u;

/** Whether a text is a name and not an address. */
export const isName = (text) => text.startsWith("hf:");

/** The parts of a name. */
export function parseName(text) {
  const [, user, repo, , tag] = /^hf:(?:\/\/)?([^/:]*)\/([^/:]*)(:(.*))?$/.exec(text) ?? [];
  const plain = [user, repo, ...(tag === undefined ? [] : tag.split("/"))];
  if (!plain.every((part) => PLAIN.test(part ?? "")))
    throw new BadOptionError(
      `${text} is no name of a model: write hf:USER/REPO or hf:USER/REPO:QUANT, ` +
        "as in hf:HuggingFaceTB/SmolLM2-135M-Instruct-GGUF:Q8_0",
    );
  return { user, repo, tag };
}

/** The paths of all files of the model that `path` is a file of. */
function siblings(path) {
  const [, stem, no, count] = SHARD.exec(path) ?? [];
  if (!(Number(no) >= 1 && Number(no) <= Number(count))) return [path];
  const numbered = (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`;
  return Array.from({ length: Number(count) }, numbered);
}

const stemOf = ([first]) => (siblings(first).length > 1 ? SHARD.exec(first)[1] : first.replace(/\.gguf$/, ""));
/** What goes beside a model is none: a projector of images, statistics. */
const isBeside = ([first]) => /mmproj|imatrix/i.test(first.split("/").pop());

/** The models among paths, each a list of its files. */
const groups = (paths) =>
  paths
    .filter((path) => path.endsWith(".gguf") && siblings(path)[0] === path)
    .sort()
    .map(siblings);

/** Whether the type is a whole word of the name. */
function has(group, tag) {
  const [stem, wanted] = [stemOf(group).toUpperCase(), tag.toUpperCase()];
  for (let at = stem.indexOf(wanted); at >= 0; at = stem.indexOf(wanted, at + 1)) {
    const [before, after] = [stem[at - 1] ?? "", stem[at + wanted.length] ?? ""];
    if (!/[\p{L}\p{N}]/u.test(before) && !/[\p{L}\p{N}_]/u.test(after)) return true;
  }
  return false;
}

/** The one of the models that is meant. */
export function pick(paths, tag) {
  const all = groups(paths);
  if (/\.gguf$/i.test(tag ?? "")) return all.find((group) => group.includes(tag));
  const models = all.filter((group) => !isBeside(group));
  const tagged = (wanted) => models.filter((group) => has(group, wanted)).sort(([a], [b]) => a.length - b.length)[0];
  if (tag !== undefined) return tagged(tag);
  return PREFERRED.map(tagged).find(Boolean) ?? models[0];
}

/** What stands behind the colon to mean a model. */
function tagOf(group, paths) {
  const words = stemOf(group).toUpperCase().split(/[-./]/).reverse();
  const tag = words.find((word) => TYPE.test(word));
  return tag && pick(paths, tag)?.[0] === group[0] ? tag : group[0];
}

const size = (bytes) => (bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

/** What a status means that is no answer. */
function refused(name, host, status, wait) {
  const why = {
    401: "wants to know who asks (401): there is no such repository, or it is private or gated; check the name, or download the file there and pick it here",
    403: "refuses this (403): the repository is gated; accept its terms on its page there, download the file and pick it here",
    404: "has nothing of this name (404); check how it is spelled",
    429: `has been asked too often (429); try again ${wait ? `after ${wait} s` : "in some minutes"}`,
  };
  const other = status >= 500 ? `fails (${status}); try again later` : `answers ${status}`;
  return new NetworkError(`${name}: ${host} ${why[status] ?? other}`);
}

async function json(name, url, { signal, fetch }) {
  const { host } = new URL(url);
  let response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    if (signal?.aborted) throw aborted();
    throw new NetworkError(`${name}: ${host} cannot be reached; is this machine on the network?`, { cause: error });
  }
  if (!response.ok) {
    await response.body?.cancel().catch(() => {});
    throw refused(name, host, response.status, response.headers.get("retry-after"));
  }
  try {
    return { value: await response.json(), link: response.headers.get("link") ?? "" };
  } catch (error) {
    if (signal?.aborted) throw aborted();
    throw new NetworkError(`${name}: ${host} does not answer as a hub does; try again later`, { cause: error });
  }
}

/**
 * The files of the model that a name means, in order: of a split model all, each with its address, its length in bytes,
 * and its sha256 where the hub names it. `name` of the result means the same model at any time.
 */
export async function resolveName(text, { hub = HUB, signal, fetch = globalThis.fetch } = {}) {
  const { user, repo, tag } = parseName(text);
  const base = hub.replace(/\/+$/, "");
  const api = `${base}/api/models/${user}/${repo}`;
  const ask = (url) => json(text, url, { signal, fetch });
  const { value: refs } = await ask(`${api}/refs`);
  const branches = Array.isArray(refs?.branches) ? refs.branches : [];
  const main = branches.find(({ name }) => name === "main") ?? branches[0];
  const commit = main?.targetCommit;
  const { host } = new URL(base);
  if (!PLAIN.test(commit ?? ""))
    throw new NetworkError(`${text}: ${host} names no commit of this repository; it may be empty`);
  const files = new Map();
  let page = `${api}/tree/${commit}?recursive=true`;
  for (let i = 0; page && i < MOST_PAGES; i++) {
    const { value, link } = await ask(page);
    for (const item of Array.isArray(value) ? value : [])
      if (
        item?.type === "file" &&
        String(item.path)
          .split("/")
          .every((part) => PLAIN.test(part))
      )
        files.set(item.path, item);
    const next = /<([^>]*)>[^,]*rel="next"/.exec(link)?.[1];
    page = next && new URL(next, page).href;
  }
  const paths = [...files.keys()];
  const group = pick(paths, tag);
  const bytesOf = (path) => files.get(path)?.lfs?.size ?? files.get(path)?.size ?? 0;
  if (!group) {
    const each = groups(paths)
      .filter((one) => !isBeside(one))
      .map((one) => `${tagOf(one, paths)} (${size(one.reduce((sum, path) => sum + bytesOf(path), 0))})`);
    throw new BadOptionError(
      each.length
        ? `${text}: there is no ${tag}; there are: ${each.join(", ")}`
        : `${text}: there is no GGUF file in this repository; the same model in GGUF is often in another, whose name ends in -GGUF`,
    );
  }
  const missing = group.find((path) => !files.has(path));
  if (missing)
    throw new NetworkError(`${text}: the model is split, and of its files ${missing} is not in the repository`);
  const address = (path) =>
    `${base}/${user}/${repo}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`;
  return {
    name: `hf:${user}/${repo}:${tagOf(group, paths)}`,
    files: group.map((path) => {
      const sha256 = /^(?:sha256:)?([0-9a-f]{64})$/.exec(files.get(path).lfs?.oid ?? "")?.[1];
      return { url: address(path), bytes: bytesOf(path), ...(sha256 && { sha256 }) };
    }),
  };
}
