// Lets the page open without a network after the first visit. A version is all of the page's files, by their content:
// it comes in whole or not at all, and a page gets every file from the same one. Models are kept elsewhere, by the package.

const VERSION = "";
const FILES = {};

/** Of this page: another on the same origin has its own. */
const PREFIX = `brooklet-page ${self.registration.scope} `;
const CACHE = PREFIX + VERSION;

const addressOf = (path) => new URL(path, self.registration.scope).href;
const paths = new Map(Object.keys(FILES).map((path) => [addressOf(path), path]));

const sha256 = async (bytes) => {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
};

const fetched = async (path) => {
  const response = await fetch(new Request(addressOf(path), { cache: "no-cache" }));
  const bytes = await response.arrayBuffer();
  if (!response.ok || (await sha256(bytes)) !== FILES[path]) throw new Error(`${path} is not the one of this version`);
  // Made anew: an answer that came by a redirection may not open a page.
  return new Response(bytes, { headers: response.headers });
};

const takeIn = async () => {
  // A page may go back to the version that is there, and fail on its way.
  const there = await caches.has(CACHE);
  const cache = await caches.open(CACHE);
  const put = async (path) => cache.put(addressOf(path), await fetched(path));
  try {
    await Promise.all([...paths.values()].map(put));
  } catch (error) {
    if (!there) await caches.delete(CACHE);
    throw error; // the version before goes on, and the next visit tries again
  }
};

const dropOld = async () => {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
};

const pathOf = (request) => {
  const url = new URL(request.url);
  url.search = url.hash = "";
  return paths.get(url.href.replace(/\/index\.html$/, "/"));
};

const answer = async (path) => {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(addressOf(path));
  if (kept) return kept;
  // The browser has cleared it away: this version's, or none.
  const response = await fetched(path);
  await cache.put(addressOf(path), response.clone());
  return response;
};

/** Not while another page is open, in the middle of the version before. */
const takeOver = async (page) => {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (pages.length === 1) await self.skipWaiting();
  else page.postMessage("later");
};

self.addEventListener("install", (event) => event.waitUntil(takeIn()));
self.addEventListener("activate", (event) => event.waitUntil(dropOld()));
self.addEventListener("message", (event) => {
  if (event.data === "take over") event.waitUntil(takeOver(event.source));
});
self.addEventListener("fetch", (event) => {
  // Only the page's own files: models, ranges and other origins go to the network as if nobody were here.
  const path = event.request.method === "GET" && !event.request.headers.has("range") && pathOf(event.request);
  if (path) event.respondWith(answer(path));
});
