// The page, opened and looked at as a visitor does: for the tests of its ways.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { FIREFOX, ROOT, complaintsOf } from "./harness.js";

export const SHOTS = join(ROOT, "target", "screenshots");
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
export const SIZES = { wide: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } };
/** Firefox has one from its start to its end: WebDriver BiDi changes none. */
export const SCHEMES = FIREFOX ? ["light"] : ["light", "dark"];

/** Opens the page; whatever it complains of is in `complaints`. */
export async function openPage(context, address) {
  const page = await context.newPage();
  const complaints = complaintsOf(page);
  await page.goto(address);
  await page.waitForSelector("html[data-ready], html[data-refused]");
  return Object.assign(page, { complaints, t: (id) => page.getByTestId(id) });
}

export const shot = (page, name) =>
  page.screenshot({
    path: join(SHOTS, FIREFOX ? "firefox" : "", `${name}.png`),
    caret: "initial", // to hide it the driver would inject a style, which the page's policy forbids
  });

/** As a visitor does. What a driver fills in by itself is no change for Firefox. */
export async function enter(field, text) {
  await field.fill("");
  await field.pressSequentially(text);
  await field.blur();
}

export async function axe(page, what) {
  // Playwright's own world: the page's policy allows no script of ours.
  await page.evaluate(readFileSync(AXE, "utf8"));
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  assert.deepEqual(
    violations.map(({ id, impact, nodes }) => `${what}: ${id} (${impact}) at ${nodes[0].target}`),
    [],
  );
}

/** A look at each size, in each scheme, with the scan; nothing may be wider than the page. */
export async function lookAtAll(page, what) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of SCHEMES) {
      await page.emulateMedia({ colorScheme });
      await shot(page, `${what}-${size}-${colorScheme}`);
      await axe(page, `${what}, ${size}, ${colorScheme}`);
    }
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(sideways <= 0, `${what}, ${size}: the page is ${sideways} px too wide`);
  }
}
