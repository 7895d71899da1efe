// `node web/serve.js [PORT]`: www/ on localhost, the default model beside it under models/. Right types, ranges,
// and headers of caching come from sirv; nothing here is needed on a static host.
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { argv, env, stderr } from "node:process";
import { fileURLToPath } from "node:url";
import sirv from "sirv";

const WWW = join(dirname(fileURLToPath(import.meta.url)), "..", "www");
/** Where the default model is kept: the binary's rule. */
const CACHES = isAbsolute(env.XDG_CACHE_HOME ?? "") ? env.XDG_CACHE_HOME : join(homedir(), ".cache");
export const CACHE = env.BROOKLET_CACHE || join(CACHES, "brooklet");

/** The same policy as the page's own, where a host can send headers. */
export const CSP =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; " +
  "connect-src 'self' https: http://localhost:* http://127.0.0.1:*; worker-src 'self'; manifest-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A server of `folders`, `{ "/": folder, "/models": folder }`, longest path first. `before(req, res)` may answer itself. */
export async function serve({ folders, port = 0, headers = {}, before }) {
  const mounts = Object.entries(folders)
    .sort(([a], [b]) => b.length - a.length)
    .map(([path, folder]) => ({ path, files: sirv(folder, { dev: true, etag: true, dotfiles: false }) }));
  const server = createServer((req, res) => {
    for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
    if (before?.(req, res)) return;
    const mount = mounts.find(({ path }) => path === "/" || req.url.startsWith(`${path}/`));
    if (mount && mount.path !== "/") req.url = req.url.slice(mount.path.length);
    const missing = () => res.writeHead(404, { "content-type": "text/plain" }).end("404: there is no such file\n");
    if (mount) mount.files(req, res, missing);
    else missing();
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://localhost:${server.address().port}`, close };
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(argv[2] ?? 8080);
  const folders = { "/": WWW };
  if (existsSync(CACHE)) folders["/models"] = CACHE;
  const headers = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
  };
  try {
    const { url } = await serve({ folders, port, headers });
    stderr.write(`brooklet: ${url}/ (Ctrl-C ends it)\n`);
  } catch (error) {
    const why =
      error.code === "EADDRINUSE" ? `port ${port} is taken; name another: ./build.sh serve ${port + 1}` : error.message;
    stderr.write(`brooklet: ${why}\n`);
    process.exit(1);
  }
}
