// Chromium with a profile of its own, for one visit.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { env } from "node:process";
import { chromium } from "playwright-core";

const ARGS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const PLACES = [env.BROOKLET_CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome", "/usr/bin/chromium-browser"];

/** What `work(page, context, profile)` gives; the browser and its profile are gone afterwards. */
export async function visitPage(work) {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error("no Chromium was found: install it or set BROOKLET_CHROMIUM to it");
  const profile = mkdtempSync(path.join(tmpdir(), "peers-"));
  const context = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args: ARGS });
  try {
    return await work(context.pages()[0] ?? (await context.newPage()), context, profile);
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}
