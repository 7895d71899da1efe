// Markdown as the page writes it: the same wherever the text was cut, and never anything that a model could make run.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { blank, browser, site } from "./harness.js";

const HOSTILE = `# One <script>globalThis.ran = true</script>

Text with **bold**, *it*, \`code\`, ~~no~~, words in [brackets] and <img src=x onerror="globalThis.ran = true">.

[good](https://a.example/b) [mail](mailto:a@b.example) [bad](javascript:globalThis.ran=true) [data](data:text/html,x)
[file](file:///etc/passwd) [here](#system=evil) [blob](blob:x) ![a picture](https://p.example/q.png) https://raw.example/x?y=1

| a | b |
|---|---|
| 1 | <b>2</b> |

- x
  - y
- [x] done
- [ ] to do

> said
> > before

\`\`\`html
<script>globalThis.ran = true</script>
\`\`\`

It costs $5, and $x^2$ is a formula. 😀

    indented

[never closed](https://a.example/`;

let chrome, server, page;

before(async () => {
  server = await site();
  chrome = await browser({ webgpu: false });
  page = await blank(chrome.context, server.url);
  await page.evaluate(async () => {
    const { createMarkdown } = await import("/markdown.js");
    globalThis.written = (pieces) => {
      const root = document.createElement("div");
      document.body.replaceChildren(root);
      const markdown = createMarkdown(root);
      for (const piece of pieces) markdown.write(piece);
      markdown.end();
      return root;
    };
  });
});
after(async () => {
  await chrome?.close();
  await server?.close();
});

test("hostile text becomes a few kinds of elements, text, and addresses of the web and of mail", async () => {
  const found = await page.evaluate((text) => {
    const root = globalThis.written([text]);
    const all = [...root.querySelectorAll("*")];
    return {
      tags: [...new Set(all.map(({ localName }) => localName))].sort(),
      names: [...new Set(all.flatMap((node) => node.getAttributeNames()))].sort(),
      links: [...root.querySelectorAll("a[href]")].map((a) => [a.getAttribute("href"), a.target, a.rel].join(" ")),
      text: root.textContent,
      ran: Boolean(globalThis.ran),
    };
  }, HOSTILE);
  const OUTSIDE = "_blank noopener noreferrer nofollow";
  assert.deepEqual(found.links, [
    `https://a.example/b ${OUTSIDE}`,
    `mailto:a@b.example ${OUTSIDE}`,
    `https://p.example/q.png ${OUTSIDE}`,
    `https://raw.example/x?y=1 ${OUTSIDE}`,
  ]);
  for (const tag of ["script", "img", "b", "iframe", "style"]) assert.ok(!found.tags.includes(tag), tag);
  assert.deepEqual(
    found.names.filter((name) => name.startsWith("on") || name === "style" || name === "src"),
    [],
  );
  // what is not made is said
  for (const words of [
    "<script>",
    "onerror=",
    "javascript:",
    "[brackets]",
    "<b>2</b>",
    "$5",
    "$x^2$",
    "[never closed](",
  ])
    assert.ok(found.text.includes(words), `${words} in ${found.text}`);
  assert.equal(found.ran, false);
  assert.deepEqual(page.complaints, []);
});

test("cut anywhere, it gives the same elements; noise too, and none of its letters is lost", async () => {
  const found = await page.evaluate((text) => {
    const { written } = globalThis;
    const whole = written([text]).innerHTML;
    const different = [];
    for (let at = 1; at < text.length; at += 1)
      if (written([text.slice(0, at), text.slice(at)]).innerHTML !== whole) different.push(at);
    if (written(text.split("")).innerHTML !== whole) different.push("everywhere");
    // pieces that mean something, in an order that means nothing
    const PIECES = [
      "#",
      " ",
      "\n",
      "*",
      "_",
      "`",
      "```",
      "|",
      "-",
      ">",
      "1. ",
      "[",
      "](",
      ")",
      "!",
      "\\",
      "$",
      "<",
      "a",
      "e f",
    ];
    let seed = 7;
    const random = (n) => {
      seed = (seed * 1103515245 + 12345) & 0x7fffffff;
      return Math.floor((seed / 0x80000000) * n);
    };
    const lost = [];
    for (let round = 0; round < 500; round += 1) {
      const noise = Array.from({ length: 5 + random(60) }, () => PIECES[random(PIECES.length)]).join("");
      const at = random(noise.length);
      const root = written([noise]);
      const letters = (string) => string.replace(/[^aef]/g, "").length;
      if (letters(root.textContent) - root.querySelectorAll(".image").length < letters(noise)) lost.push(noise);
      if (written([noise.slice(0, at), noise.slice(at)]).innerHTML !== root.innerHTML) different.push(noise);
    }
    // a fence that is no line of its own does not end the code
    const code = written(["```js\nconst a = b```\nconst c\n```\nafter"]).querySelector("code").textContent;
    return { different, lost, code };
  }, HOSTILE);
  assert.deepEqual(found, { different: [], lost: [], code: "const a = b```\nconst c" });
});

test("what never ends costs its length: quotes in quotes, an address, a block of code", async () => {
  const found = await page.evaluate(() => {
    const { written } = globalThis;
    const depth = (node) => (node.firstElementChild ? 1 + depth(node.firstElementChild) : 0);
    const quotes = written([">".repeat(20_000) + " the end"]);
    const address = written([`[a](${"x".repeat(100_000)}`]);
    const code = written(["```\n", ...Array(10_000).fill("a line of code\n")]);
    return {
      depth: depth(quotes),
      quotes: quotes.textContent,
      address: address.textContent.length,
      nodes: code.querySelector("pre code").childNodes.length,
      code: code.querySelector("pre code").textContent.length,
    };
  });
  assert.ok(found.depth <= 20, `${found.depth} levels`);
  assert.match(found.quotes, /the end/);
  assert.ok(found.address >= 100_000);
  assert.ok(found.code >= 149_999);
  assert.ok(found.nodes > 20, "a text node that grows is copied each time");
});
