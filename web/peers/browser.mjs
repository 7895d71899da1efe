// A browser for one visit, and what of ours is measured in it.
import path from "node:path";
import { browser } from "../chromium.js";

/** What `./build.sh web` makes. */
export const PACKAGE = path.join(import.meta.dirname, "..", "pkg");
export const GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf";

/** What `work(page, context, profile)` gives; the browser and its profile are gone afterwards. */
export async function visitPage(work) {
  const { context, profile, close } = await browser();
  try {
    return await work(context.pages()[0] ?? (await context.newPage()), context, profile);
  } finally {
    await close();
  }
}
