// Lets the page open without a network after the first visit. Models are kept elsewhere, by the package.

const CACHE = "brooklet-page-1";
const FILES = [
  "./",
  "style.css",
  "narrow.css",
  "main.js",
  "view.js",
  "session.js",
  "text.js",
  "slots.js",
  "ring.js",
  "chart.js",
  "settings.js",
  "models.js",
  "alerts.js",
  "format.js",
  "look.js",
  "icon.svg",
  "manifest.webmanifest",
  ...["index", "options", "errors", "advice", "worker", "core", "source", "download", "store", "brooklet"].map(
    (name) => `brooklet/${name}.js`,
  ),
  "brooklet/brooklet_bg.wasm",
];

// A file that is missing must not keep the others from being there offline.
const precache = async () => {
  const cache = await caches.open(CACHE);
  await Promise.allSettled(FILES.map((file) => cache.add(new Request(file, { cache: "no-cache" }))));
};

const dropOld = async () => {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("brooklet-page-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
};

const known = () => new Set(FILES.map((file) => new URL(file, self.registration.scope).href));

const bare = (request) => {
  const url = new URL(request.url);
  url.search = url.hash = "";
  return url.href.replace(/\/index\.html$/, "/");
};

// Only the page's own files: models, ranges and other origins go to the network as if nobody were here.
const ours = (request) => request.method === "GET" && !request.headers.has("range") && known().has(bare(request));

const networkFirst = async (event) => {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(event.request);
    if (response.status === 200 && response.type === "basic") {
      const put = cache.put(bare(event.request), response.clone());
      event.waitUntil(put.catch((error) => console.info("not kept for offline:", error.message)));
    }
    return response;
  } catch (error) {
    const kept = await cache.match(bare(event.request));
    if (kept) return kept;
    throw error;
  }
};

self.addEventListener("install", (event) => event.waitUntil(precache().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(dropOld().then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => {
  if (ours(event.request)) event.respondWith(networkFirst(event));
});
