// The page's chat, as a visitor meets it: talked with, stopped, edited, kept, found again, and with what can go wrong.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { TINY, browser, needs, site } from "./harness.js";
import { withText } from "./gguf.js";
import { SHOTS, SIZES, axe, lookAtAll, openPage, shot } from "./pages.js";

/** What a conversation is to the small model: it has no words, and says nothing that is worth reading. */
const TEMPLATE =
  "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

let chrome, server;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  const chatting = withText(readFileSync(TINY), "tokenizer.chat_template", TEMPLATE);
  server = await site((req, res) => {
    if (!req.url.startsWith("/chatting.gguf")) return false;
    res.writeHead(200, { "content-length": chatting.length, "content-type": "application/octet-stream" });
    res.end(chatting);
    return true;
  });
  chrome = await browser({ viewport: SIZES.wide, permissions: ["clipboard-read", "clipboard-write"] });
});
after(async () => {
  await chrome?.close();
  await server?.close();
});

const open = (path = "/") => openPage(chrome.context, server.url + path);
const small = (more = {}) =>
  `/#${new URLSearchParams({ chat: "", model: `${server.url}/chatting.gguf`, answer: 12, seed: 3, ...more })}`;

const idle = (page) => page.waitForSelector("html[data-chat=idle]");
/** Waits until what `work` begins is over; it may be over before anybody looks. */
const turn = async (page, work) => {
  await page.evaluate(() => {
    globalThis.rests = 0;
    const look = { attributes: true, attributeFilter: ["data-chat"] };
    globalThis.resting ??= new MutationObserver(
      () => (globalThis.rests += document.documentElement.matches("[data-chat=idle]")),
    );
    globalThis.resting.observe(document.documentElement, look);
  });
  await work();
  await page.waitForFunction(() => globalThis.rests > 0);
};
const speaking = (page) => page.waitForSelector("html[data-chat=speaking]");
const asked = async (page, text) => {
  await page.t("say").fill(text);
  await page.t("say").press("Enter");
};
/** Sends, and waits until the answer is there. */
const say = async (page, text) => {
  const before = await page.locator(".assistant .note:not(:empty)").count();
  await asked(page, text);
  await page.waitForFunction((n) => document.querySelectorAll(".assistant .note:not(:empty)").length > n, before);
  await idle(page);
};
const texts = (page, who) => page.locator(`.${who} .said`).allTextContents();
const titles = (page) => page.t("chat-list").locator(".name").allTextContents();
const menu = async (page, what) => {
  await page.t("more").click();
  await page.t(`chat-${what}`).click();
};

test("one click from opening to an answer of the default model, with its figures", { timeout: 480_000 }, async () => {
  const page = await open("/#answer=16&chat");
  assert.equal(await page.locator("#way-chat").getAttribute("aria-current"), "page", "a chat model is for the chat");
  await lookAtAll(page, "chat-start");
  await page.setViewportSize(SIZES.wide);
  await page.t("starters").getByRole("button").first().click();
  await page.waitForSelector("html[data-chat=loading]");
  await speaking(page);
  await idle(page);
  assert.match((await texts(page, "assistant"))[0], /\w+ \w+/);
  assert.match(await page.locator(".assistant .note").first().textContent(), /16 tokens · [\d.]+ a second · the first/);
  assert.match(await page.t("chat-seen").textContent(), /\d\d/);
  assert.match(await page.t("meter").getAttribute("aria-label"), /2 messages whole, 0 in part, 0 forgotten/);
  assert.match(await page.t("chat-title").textContent(), /^Tell me/);
  await shot(page, "chat-default-model");
  await axe(page, "an answer");
  assert.deepEqual(page.complaints, []);
  await page.close();
});

test("stop, go on, regenerate, edit, delete, the keys, and a device that is lost", async () => {
  const page = await open(small({ answer: 4000 }));
  const answer = page.locator("#answer");
  await page.evaluate(() => {
    globalThis.heard = 0;
    const look = { childList: true, characterData: true, subtree: true };
    new MutationObserver(() => (globalThis.heard += 1)).observe(document.getElementById("chat-live"), look);
  });
  await asked(page, "Hello");
  await speaking(page);
  await page.t("say").press("Escape");
  await idle(page);
  assert.match(await page.locator(".assistant .note").textContent(), /stopped/);
  await answer.evaluate((field) => (field.value = "12"));
  await say(page, "Go on");
  assert.equal(await page.t("assistant").count(), 2);
  // the same seed would give the same answer again
  const before = await texts(page, "assistant");
  await page.evaluate(() => (document.getElementById("seed").value = "4"));
  await turn(page, () => page.getByRole("button", { name: "Regenerate this answer" }).click());
  const anew = await texts(page, "assistant");
  assert.equal(anew.length, 2);
  assert.equal(anew[0], before[0]);
  assert.notEqual(anew[1], before[1]);
  // an empty line and the arrow up: the last message, to be changed; Escape leaves it
  await page.t("say").press("ArrowUp");
  assert.equal(await page.t("say").inputValue(), "Go on");
  await page.t("say").press("Escape");
  assert.equal(await page.t("say").inputValue(), "");
  await page.t("say").press("ArrowUp");
  await page.t("say").fill("Go on, please");
  await page.t("say").press("Shift+Enter");
  await page.t("say").pressSequentially("now");
  await turn(page, () => page.t("say").press("Enter"));
  assert.deepEqual(await texts(page, "user"), ["Hello", "Go on, please\nnow"]);
  await page.locator(".message").last().getByRole("button", { name: "Copy this answer" }).click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(copied.length > 0);
  await page.getByRole("button", { name: /Delete this question/ }).click();
  assert.deepEqual(await texts(page, "user"), ["Hello"]);
  await say(page, "And once more");
  assert.equal(await page.t("assistant").count(), 2);
  assert.equal(await page.locator("#messages").getAttribute("aria-live"), "off");
  assert.ok((await page.evaluate(() => globalThis.heard)) <= 15, "sentences are said to a screen reader, not tokens");
  assert.deepEqual(page.complaints, []);
  // as a driver's reset would have it, before the next token
  await page.evaluate(() => {
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (message) {
      Worker.prototype.postMessage = postMessage;
      this.postMessage({ brooklet: "call", id: -1, method: "loseDevice", args: {} });
      return this.postMessage(message);
    };
  });
  await asked(page, "Are you there?");
  await page.t("error").waitFor();
  assert.match(await page.t("error").textContent(), /The conversation is safe/);
  await turn(page, () => page.t("retry").click());
  assert.equal((await texts(page, "user")).at(-1), "Are you there?");
  assert.equal(await page.t("assistant").count(), 3);
  await page.close();
});

test("conversations are kept, searched, named, sent out and taken in", async () => {
  let page = await open(small());
  await say(page, "About bread");
  await page.keyboard.press("Control+Shift+O");
  await page.waitForFunction(() => !document.querySelector(".message"));
  await say(page, "About rivers");
  await menu(page, "rename");
  await page.t("chat-name").fill("Water");
  await page.t("chat-name").press("Enter");
  await page.t("chat-list").getByText("Water").waitFor();
  await page.reload();
  await page.waitForSelector("html[data-ready]");
  assert.equal(await page.t("chat-title").textContent(), "Water", "a reload comes back to it");
  assert.deepEqual(await texts(page, "user"), ["About rivers"]);
  assert.deepEqual((await titles(page)).slice(0, 2), ["Water", "About bread"]);
  const said = await texts(page, "assistant");
  await say(page, "Where were we?");
  assert.match(await page.locator(".assistant .note").last().textContent(), /told anew/);
  assert.deepEqual((await texts(page, "assistant")).slice(0, 1), said);
  // titles and texts are searched
  await page.keyboard.press("Control+K");
  for (const [words, found] of [
    ["BREAD", ["About bread"]],
    ["where were", ["Water"]],
    ["nowhere at all", []],
  ]) {
    await page.t("search").fill(words);
    const wanted = JSON.stringify(found);
    await page.waitForFunction(
      (wanted) =>
        JSON.stringify([...document.querySelectorAll("#chat-list .name")].map((n) => n.textContent)) === wanted,
      wanted,
    );
  }
  await page.t("search").fill("");
  await page.t("chat-list").getByText("About bread").waitFor();
  if (!needs("download")) {
    const [download] = await Promise.all([page.waitForEvent("download"), menu(page, "export")]);
    assert.equal(download.suggestedFilename(), "Water.json");
    const file = JSON.parse(readFileSync(await download.path(), "utf8"));
    assert.deepEqual(
      file.messages.map(({ role }) => role),
      ["user", "assistant", "user", "assistant"],
    );
    await menu(page, "delete");
    await page.t("chat-delete").click();
    await page.waitForFunction(() => !document.querySelector(".message"));
    await page.t("chats-import").setInputFiles({
      name: "back.json",
      mimeType: "application/json",
      buffer: Buffer.from(JSON.stringify(file)),
    });
    await page.waitForSelector(".message");
    assert.equal(await page.t("chat-title").textContent(), "Water");
    assert.deepEqual(await texts(page, "user"), ["About rivers", "Where were we?"]);
  }
  // what is wrong with a file is said, and what is there stays
  const kept = await titles(page);
  const hostile = {
    messages: [
      { role: "user", content: "x" },
      { role: "<img src=x onerror=alert(1)>", content: "" },
    ],
  };
  await page.t("chats-import").setInputFiles({
    name: "bad.json",
    mimeType: "application/json",
    buffer: Buffer.from(JSON.stringify(hostile)),
  });
  await page.t("error").waitFor();
  assert.match(await page.t("error").textContent(), /Message 2 of the conversation has the role “<img/);
  await axe(page, "an import that is refused");
  assert.deepEqual(await titles(page), kept);
  assert.deepEqual(page.complaints, []);
  await page.close();
});

test("what is forgotten fades, on the ring and in the text; the system prompt does not", async () => {
  const page = await open(small({ system: "Be brief.", memory: 64, answer: 10 }));
  for (const which of ["first", "second", "third", "fourth", "fifth", "sixth"])
    await say(page, `The ${which} question`);
  const seen = await page.locator(".message").evaluateAll((all) => all.map((node) => node.dataset.seen ?? "whole"));
  assert.equal(seen[0], "gone");
  assert.equal(seen.at(-1), "whole");
  const first = seen.findIndex((name) => name !== "gone");
  assert.ok(
    seen.slice(first).every((name) => name !== "gone"),
    `in order: ${seen}`,
  );
  assert.match(await page.locator(".fate").first().textContent(), /^Forgotten: the model sees nothing/);
  assert.equal(await page.locator(".divider").textContent(), "forgotten above here");
  assert.equal(
    await page
      .locator(".divider")
      .evaluate((node) => [...node.parentElement.querySelectorAll(".divider, .message")].indexOf(node)),
    first,
  );
  assert.ok(Number((await page.t("chat-forgotten").textContent()).replace(/\D/g, "")) > 0);
  // the ring tells its messages to the keyboard
  await page.t("meter").focus();
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.t("meter-caption").textContent(), /^the model · \d+ tokens · seen whole/);
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.t("meter-caption").textContent(), /^you · .*The sixth question/);
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.className), "message user");
  await page.evaluate(() => document.getElementById("talk").scrollTo(0, 0));
  await lookAtAll(page, "chat-forgotten");
  // The two ways share one engine, and each goes on after the other.
  await page.t("way-stream").click();
  await page.t("start").click();
  await page.waitForFunction(() => Number(document.getElementById("tokens").textContent) > 20);
  const streamed = await page.t("stage").textContent();
  await page.t("way-chat").click();
  await page.waitForSelector("html[data-state=stopped]");
  await say(page, "And now?");
  assert.match(await page.locator(".assistant .note").last().textContent(), /told anew/);
  await page.t("way-stream").click();
  await page.t("continue").click();
  await page.waitForSelector("html[data-state=streaming]");
  assert.ok((await page.t("stage").textContent()).startsWith(streamed.slice(0, 40)));
  assert.deepEqual(page.complaints, []);
  await page.close();
});

test("a link shows its system prompt and sends nothing; the stream's link opens the stream", async () => {
  const page = await open(small({ system: "You are <b>a heron</b>." }));
  assert.equal(await page.t("system-text").inputValue(), "You are <b>a heron</b>.");
  assert.ok(await page.t("system-text").isVisible());
  assert.match(await page.t("system").textContent(), /came with the link/);
  assert.equal(await page.evaluate(() => document.documentElement.dataset.chat), "idle");
  assert.equal(await page.locator(".message").count(), 0);
  await page.t("more").click();
  await page.t("chat-link").click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /#system=You\+are\+%3Cb%3Ea\+heron%3C%2Fb%3E\.&model=http/);
  await shot(page, "chat-link");
  await axe(page, "a link's system prompt");
  // the other way by the keyboard, and back by the browser
  await page.t("way-stream").focus();
  await page.keyboard.press("Enter");
  await page.t("prompt").waitFor();
  assert.equal(await page.t("say").isVisible(), false);
  await page.goBack();
  await page.t("say").waitFor();
  await page.goto(`${server.url}/#prompt=Once`);
  await page.t("prompt").waitFor();
  assert.deepEqual(page.complaints, []);
  await page.close();
});

test("a model without a template is said, with what to do", async () => {
  const page = await open(`/#chat&model=${encodeURIComponent(`${server.url}/fixtures/tiny.gguf`)}`);
  await asked(page, "Hello");
  await page.t("error").waitFor();
  assert.match(await page.t("error").textContent(), /not made for conversations/);
  assert.deepEqual(await texts(page, "user"), ["Hello"], "what was asked is not lost");
  await axe(page, "no template");
  await page.t("retry").click();
  await page.t("prompt").waitFor();
  await page.close();
});

test("a conversation of thousands of messages shows its end, and more when asked", async () => {
  const page = await open(small({ memory: 64 }));
  const messages = Array.from({ length: 4000 }, (_, n) => ({
    role: n % 2 ? "assistant" : "user",
    content: `Message ${n}: **bold** and a [link](https://a.example).`,
  }));
  await page.t("chats-import").setInputFiles({
    name: "long.json",
    mimeType: "application/json",
    buffer: Buffer.from(JSON.stringify({ title: "Long", messages })),
  });
  await page.waitForSelector(".message");
  const nodes = () => page.evaluate(() => document.querySelectorAll("#talk *").length);
  assert.equal(await page.locator(".message").count(), 40);
  assert.equal(await page.t("earlier").textContent(), "… 3,960 earlier messages");
  const [early, top] = [await nodes(), await page.locator(".message .said").last().textContent()];
  assert.match(top, /^Message 3999/);
  await page.t("earlier").click();
  assert.equal(await page.locator(".message").count(), 80);
  assert.match(await page.locator(".message .said").first().textContent(), /^Message 3920/);
  for (let i = 0; i < 3; i += 1) await say(page, `More ${i}`);
  assert.equal(await page.locator(".message").count(), 40, "they fold away again");
  assert.ok((await nodes()) < early + 200);
  assert.deepEqual(page.complaints, []);
  await page.close();
});
