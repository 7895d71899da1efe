// Chromium with a profile of its own, for the tests and for the measurements.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const PLACES = [env.BROOKLET_CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome", "/usr/bin/chromium-browser"];

/** A browser without a window; `context`, `profile` and `close` go with it. */
export async function browser({ webgpu = true, args = [], ...options } = {}) {
  const executablePath = PLACES.find((path) => path && existsSync(path));
  if (!executablePath) {
    throw new Error("no Chromium was found: install it (Debian: chromium) or set BROOKLET_CHROMIUM to it");
  }
  const profile = mkdtempSync(join(tmpdir(), "brooklet-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: [...ARGUMENTS, ...(webgpu ? ["--enable-unsafe-webgpu"] : []), ...args],
    ...options,
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  };
  return { context, profile, close };
}
