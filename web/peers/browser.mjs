// A browser for one visit.
import { browser } from "../chromium.js";

/** What `work(page, context, profile)` gives; the browser and its profile are gone afterwards. */
export async function visitPage(work) {
  const { context, profile, close } = await browser();
  try {
    return await work(context.pages()[0] ?? (await context.newPage()), context, profile);
  } finally {
    await close();
  }
}
