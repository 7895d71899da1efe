// Firefox as a distribution ships it, for the tests and for the measurements; chromium.js is its like.
import { existsSync } from "node:fs";
import { env } from "node:process";
import { firefox } from "playwright-core";

const PLACES = [env.BROOKLET_FIREFOX, "/usr/bin/firefox-esr", "/usr/bin/firefox", "/snap/bin/firefox"];

/** Whether there is one to drive. */
export const hasFirefox = () => PLACES.some((path) => path && existsSync(path));

/** What is asked of its settings, since the driver cannot ask for it otherwise. */
const preferences = ({ webgpu, colorScheme }) => ({
  "dom.webgpu.enabled": true,
  "gfx.webgpu.ignore-blocklist": webgpu,
  "layout.css.prefers-color-scheme.content-override": colorScheme === "dark" ? 0 : 1,
  "dom.events.testing.asyncClipboard": true, // without a question
  "network.dns.localDomains": "insecure.test", // a page that is neither https nor localhost
  "dom.security.https_first": false,
  "app.normandy.enabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
});

/** A browser without a window; `context` and `close` go with it. WebDriver BiDi drives it. */
export async function browser({ webgpu = true, colorScheme = "light", viewport } = {}) {
  const executablePath = PLACES.find((path) => path && existsSync(path));
  if (!executablePath) {
    throw new Error("no Firefox was found: install it (Debian: firefox-esr) or set BROOKLET_FIREFOX to it");
  }
  const launched = await firefox.launch({
    channel: "moz-firefox",
    executablePath,
    headless: true,
    timeout: 60_000,
    firefoxUserPrefs: preferences({ webgpu, colorScheme }),
  });
  const context = await launched.newContext(viewport && { viewport });
  return { context, close: () => launched.close() };
}
