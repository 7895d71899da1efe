// The worker that an engine lives in. A worker of your own becomes one by importing this file.
import { Host } from "./core.js";
import { plain } from "./errors.js";

let host = new Host();
const running = new Map();

self.addEventListener("message", async ({ data }) => {
  const { brooklet, id, of, method, args } = data ?? {};
  if (brooklet === "abort") running.get(id)?.abort();
  if (brooklet !== "call") return;
  const abort = new AbortController();
  running.set(id, abort);
  try {
    if (method === "unload") {
      const old = host;
      host = new Host(); // for the next engine
      old.unload();
      return self.postMessage({ brooklet: "result", id });
    }
    const onEvent = (event) => self.postMessage({ brooklet: "event", id, event });
    const result = await host.call(method, args, { of, signal: abort.signal, onEvent });
    self.postMessage({ brooklet: "result", id, result });
  } catch (error) {
    self.postMessage({ brooklet: "error", id, error: plain(error) });
  } finally {
    running.delete(id);
  }
});
