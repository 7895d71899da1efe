// Conversations of the package in a browser, and chat in OpenAI's shape. The tiny model's words mean nothing: that of its
// answers is held to the native binary's, or to what came before.
import assert from "node:assert/strict";
import { test } from "node:test";
import { TINY, nativeChat, packagePages } from "./harness.js";

const here = packagePages();
const SYSTEM = "You are terse.";

test("answers are those of the native binary, and a turn feeds its own tokens alone", async () => {
  const said = ["hello there", "and the rain?", "once upon a time", "the end", "no"];
  const options = ["--chat-template", "chatml", "--system", SYSTEM, "--window", "60", "-n", "9"];
  const native = nativeChat(["-m", TINY, ...options], said);
  const found = await here.inPage(
    async ({ load, collect }, { said, system }) => {
      const engine = await load();
      const chat = engine.conversation({ system, template: "chatml", window: 60 });
      const turns = [];
      for (const text of said) {
        const answer = chat.send(text, { temperature: 0, maxTokens: 9 });
        const pieces = await collect(answer);
        turns.push({ text: pieces.map(({ text }) => text).join(""), stats: { ...answer.stats } });
      }
      const { messages } = chat;
      const window = await chat.window();
      const { cache, chat: can } = engine.info;
      await engine.unload();
      return { turns, messages, window, cache, can, exported: chat.export() };
    },
    { said, system: SYSTEM },
  );
  assert.deepEqual(
    found.turns.map(({ text, stats }) => ({ text, fed: stats.fed, position: stats.position })),
    native.map(({ text, turn }) => ({ text, fed: turn.fed, position: turn.position })),
  );
  assert.deepEqual(
    found.turns.map(({ stats }) => [stats.forgotten, stats.window.gone, stats.retold, stats.stopReason]),
    native.map(({ turn }) => [turn.forgotten, turn.gone, false, "length"]),
  );
  assert.ok(
    found.window.forgotten > 0 && found.window.gone > 0,
    "the window is small enough for something to be forgotten",
  );
  const [oldest] = found.window.messages;
  assert.equal(oldest.message, found.window.gone);
  assert.equal(
    found.messages.map(({ content }) => content).join("|"),
    native.flatMap(({ text }, at) => [said[at], text]).join("|"),
  );
  assert.deepEqual(found.exported.messages[0], { role: "system", content: SYSTEM });
  assert.equal(found.cache.sinks, found.window.pinned);
  assert.equal(found.can.template, false, "the tiny model has no template of its own");
});

test("conversations of one engine", async (t) => {
  const all = await here.inPage(async ({ load, collect, said }) => {
    const engine = await load({ window: 30 });
    const stopped = async () => {
      const said = async (answer, most) => (await collect(answer, most)).map(({ text }) => text).join("");
      const chat = engine.conversation({ template: "chatml", window: 200 });
      const options = { temperature: 0, maxTokens: 20 };
      const first = await said(chat.send("hello", options));
      const again = await said(chat.regenerate(options));
      const cut = await said(chat.send("and then?", { ...options, maxTokens: undefined }), 3);
      const kept = chat.messages.at(-1).content;
      const after = await said(chat.send("go on", options));
      const edited = chat.edit("hello", options);
      const other = await said(edited);
      const roles = chat.messages.map(({ role }) => role).join(" ");
      // What was told is the same however it came about; the model's own words here are not all characters.
      const messages = [
        { role: "user", content: "hello" },
        { role: "assistant", content: "hello there" },
      ];
      const twin = engine.conversation({ template: "chatml", window: 200, messages });
      const answer = twin.send("and then?", options);
      const told = await said(answer);
      const back = chat.send("hello", options);
      await said(back);
      const anew = twin.regenerate(options);
      const toldAnew = await said(anew);
      const retold = [edited, answer, back, anew].map(({ stats }) => stats.retold);
      return { first, again, cut, kept, after, other, told, toldAnew, roles, retold };
    };
    const turns = async () => {
      const text = async (stream) => (await collect(stream)).map(({ text }) => text).join("");
      const options = { temperature: 0, maxTokens: 8 };
      const alone = await text(engine.stream("once upon", options));
      const chat = engine.conversation({ template: "chatml" });
      const one = await text(chat.send("hello", options));
      const caches = [engine.info.cache];
      const unread = chat.send("never read", options);
      const stream = engine.stream("once upon", options);
      const anew = await text(stream);
      caches.push(engine.info.cache);
      const late = await text(unread);
      await engine.reset();
      const two = await text(chat.regenerate(options));
      const kept = chat.messages.length;
      return { alone, one, anew, two, late, kept, caches };
    };
    const signals = async () => {
      const text = async (stream) => (await collect(stream)).map(({ text }) => text).join("");
      const options = { temperature: 0, maxTokens: 8 };
      const chat = engine.conversation({ template: "chatml", window: 300 });
      const early = new AbortController();
      early.abort();
      const before = await collect(chat.send("hello", { signal: early.signal })).catch(({ code }) => code);
      const none = chat.messages.length;
      const stopped = chat.send("hello ".repeat(300), options);
      const reading = stopped.next();
      await stopped.stop();
      await reading;
      const still = chat.messages.length;
      const abort = new AbortController();
      const answer = chat.send("hello", { temperature: 0, signal: abort.signal });
      let said = "";
      let heard = 0;
      let code;
      try {
        for await (const { text } of answer) {
          said += text;
          if (++heard === 2) abort.abort();
        }
      } catch (error) {
        code = error.code;
      }
      const kept = chat.messages.at(-1).content;
      const after = await text(chat.send("go on", options));
      const [, answer1, , answer2] = chat.messages.map(({ content }) => content);
      return { before, none, still, reason: stopped.stats.stopReason, code, said, kept, after, answer1, answer2 };
    };
    const wrong = async () => {
      const fails = async (options, text = "hello") => {
        try {
          return await said(engine.conversation(options).send(text, { maxTokens: 2, temperature: 0 }));
        } catch ({ code, message }) {
          return { code, message };
        }
      };
      const create = (request) =>
        engine.chat.completions.create(request).catch(({ code, message }) => ({ code, message }));
      const user = { role: "user", content: "hello" };
      const out = {
        none: await fails({}),
        name: await fails({ template: "tool_use" }),
        broken: await fails({ template: "{% for %}" }),
        raised: await fails({ template: "{{ raise_exception('only on Sundays') }}" }),
        long: await fails({ template: "chatml", system: "so long ".repeat(60), window: 40 }),
        empty: await fails({ template: "chatml" }, " "),
        turns: await fails({ messages: [{ role: "assistant", content: "first" }] }),
        option: await fails({ sinks: 4 }),
        tools: await create({ messages: [user], tools: [{ type: "function" }] }),
        last: await create({ messages: [user, { role: "assistant", content: "x" }] }),
        image: await create({ messages: [{ role: "user", content: [{ type: "image_url" }] }] }),
        works: await fails({ template: "chatml" }),
      };
      return out;
    };
    const out = { turns: await turns(), stopped: await stopped(), signals: await signals(), wrong: await wrong() };
    await engine.unload();
    return out;
  });
  assert.equal(all.message, undefined);
  await t.test("an answer is stopped, gone on from, made anew and asked for anew", () => {
    const found = all.stopped;
    assert.equal(found.again, found.first);
    assert.ok(found.kept.startsWith(found.cut) && found.cut !== "");
    assert.ok(found.after !== "" && found.other !== "");
    assert.equal(found.toldAnew, found.told);
    assert.equal(found.roles, "user assistant user assistant user assistant");
    assert.deepEqual(found.retold, [false, true, true, true]);
  });
  await t.test("a conversation and a stream take turns over one cache", () => {
    const found = all.turns;
    assert.equal(found.anew, found.alone);
    assert.equal(found.two, found.one);
    assert.equal(found.late, "", "what another has followed before it was begun is over");
    assert.equal(found.kept, 2);
    assert.notDeepEqual(found.caches[0], found.caches[1]);
    assert.equal(found.caches[1].window, 30);
  });
  await t.test("a signal ends the reading of a message, which is taken back, and an answer where it is", () => {
    const found = all.signals;
    assert.deepEqual([found.before, found.none, found.still, found.reason], ["aborted", 0, 0, "stopped"]);
    assert.equal(found.code, "aborted");
    assert.ok(found.said !== "" && found.kept.startsWith(found.said), "the message has all that the model has said");
    assert.deepEqual([found.answer1, found.answer2], [found.kept, found.after]);
  });
  await t.test("what cannot be is said in a sentence, and the engine goes on", () => {
    const found = all.wrong;
    const says = (name, code, text) => {
      assert.equal(found[name].code, code, `${name}: ${JSON.stringify(found[name])}`);
      assert.match(found[name].message, text);
    };
    says("none", "bad-option", /template FILE: a template is needed|template.*is needed/);
    says("name", "bad-option", /tool_use.*chatml works with any/);
    says("broken", "bad-model", /chat template: line 1.*template gives another/);
    says("raised", "bad-model", /only on Sundays/);
    says("long", "bad-option", /the system prompt has \d+ tokens, and the cache holds \d+/);
    says("empty", "bad-option", /nothing in the message/);
    says("turns", "bad-option", /message 1: a message of role "user"/);
    says("option", "bad-option", /sinks: there is no such option/);
    says("tools", "bad-option", /tools: brooklet does not do this yet/);
    says("last", "bad-option", /the last message is wanted from the user/);
    says("image", "bad-option", /message 1: a string is wanted/);
    assert.deepEqual([found.works.tokens, found.works.ended], [2, "length"]);
  });
});

test("chat in OpenAI's shape goes on from its own answers, and WebLLM's names work", async () => {
  const found = await here.inPage(async ({ TINY }) => {
    const { CreateMLCEngine, MLCEngine } = await import("/brooklet/webllm.js");
    const reports = [];
    const appConfig = { model_list: [{ model_id: "Tiny-q4f16_1-MLC", model: new URL(TINY, location.href).href }] };
    const config = { appConfig, initProgressCallback: (report) => reports.push(report) };
    const engine = await CreateMLCEngine("Tiny-q4f16_1-MLC", config, { context_window_size: 300 });
    const unknown = await engine.reload("Nobody-7B-q4f16_1-MLC").catch(({ code }) => code);
    const gone = await new MLCEngine().chat.completions.create({ messages: [] }).catch(({ code }) => code);
    engine.chat.completions.create({ messages: [{ role: "user", content: "x" }], stream: true }); // and never read
    const messages = [
      { role: "system", content: "You are terse." },
      { role: "user", content: [{ type: "text", text: "hello" }] },
    ];
    const common = { temperature: 0, max_tokens: 8, seed: 1 };
    const whole = await engine.chat.completions.create({ messages, ...common }).catch((error) => error.message);
    await engine.unload();
    return { reports, unknown, gone, whole };
  });
  assert.equal(found.message, undefined);
  assert.deepEqual([found.unknown, found.gone], ["bad-option", "bad-option"]);
  assert.ok(found.reports.length > 0 && found.reports.every(({ text }) => typeof text === "string"));
  // The tiny model has no template, and WebLLM's names do not give one.
  assert.match(found.whole, /a template is needed/);

  const turns = await here.inPage(async ({ load }) => {
    const engine = await load();
    const { completions } = engine.chat;
    completions.with({ template: "chatml", window: 300 });
    const messages = [
      { role: "system", content: "You are terse." },
      { role: "user", content: [{ type: "text", text: "hello" }] },
    ];
    const common = { temperature: 0, max_tokens: 8, seed: 1 };
    const whole = await completions.create({ messages, ...common, n: 2 });
    messages.push(whole.choices[0].message, { role: "user", content: "and then?" });
    const request = { messages, ...common, stream: true, stream_options: { include_usage: true } };
    // Two at a time: one waits for the other.
    const [one, two] = await Promise.all([completions.create(request), completions.create({ messages, ...common })]);
    const chunks = [];
    for await (const chunk of one) chunks.push(chunk);
    const last = completions.message;
    await engine.unload();
    return { whole, chunks, two, last };
  });
  const { whole, chunks, two } = turns;
  assert.equal(whole.object, "chat.completion");
  assert.deepEqual(
    whole.choices.map(({ finish_reason, message }) => [finish_reason, message.role]),
    [
      ["length", "assistant"],
      ["length", "assistant"],
    ],
  );
  assert.equal(whole.choices[0].message.content, whole.choices[1].message.content, "greedy");
  assert.deepEqual([whole.usage.completion_tokens, whole.usage.prompt_tokens_details.cached_tokens], [16, 0]);
  const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
  assert.equal(text, two.choices[0].message.content);
  const { usage } = chunks.at(-1);
  assert.ok(usage.prompt_tokens_details.cached_tokens > whole.usage.prompt_tokens, "the history was not fed again");
  assert.equal(chunks.at(-2).choices[0].finish_reason, "length");
  assert.equal(turns.last, text);
});
