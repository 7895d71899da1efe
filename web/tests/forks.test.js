// Streams side by side over one model: forks of an engine.
import assert from "node:assert/strict";
import { test } from "node:test";
import { packagePages } from "./harness.js";

const here = packagePages();

test("forks go on side by side, each as it would by itself", async () => {
  const found = await here.inPage(async ({ load, collect }) => {
    const options = (seed) => ({ temperature: 1, seed, maxTokens: 24 });
    const text = async (stream) => (await collect(stream)).map(({ text }) => text).join("");
    const engine = await load({ window: 40, streams: 3 });
    const prompt = "once upon a time";
    // By itself.
    const alone = [];
    for (const seed of [1, 2, 3]) {
      await engine.reset();
      alone.push(await text(engine.stream(prompt, options(seed))));
    }
    // Side by side, out of one beginning.
    await engine.reset();
    await engine.feed(prompt);
    const forks = [await engine.fork(), await engine.fork()];
    const all = [engine, ...forks];
    const together = await Promise.all(all.map((one, at) => text(one.stream("", options(at + 1)))));
    const positions = forks.map(({ info }) => info.cache.window);
    // They go on from where they are; one that is stopped leaves the others alone.
    const more = await Promise.all(all.map((one) => text(one.stream("", options(9)))));
    const said = async (promise) => promise.then(() => "nothing").catch(({ code, message }) => `${code}: ${message}`);
    const fourth = await said(engine.fork());
    await forks[0].unload();
    const gone = await said(forks[0].feed("hello"));
    const again = await engine.fork();
    const same = (await text(again.stream("", options(4)))) === (await text(engine.stream("", options(4))));
    // A conversation beside a stream.
    const chat = again.conversation({ template: "chatml", window: 60 });
    const [answer] = await Promise.all([
      text(chat.send("hello", { temperature: 0, maxTokens: 8 })),
      text(engine.stream(" and then", options(5))),
    ]);
    await engine.unload();
    const after = await said(forks[1].feed("hello"));
    return { alone, together, positions, more, fourth, gone, same, answer: answer.length > 0, after };
  });
  assert.deepEqual(found.together, found.alone);
  assert.equal(new Set(found.alone).size, 3, "seeds differ");
  assert.deepEqual(found.positions, [40, 40]);
  assert.equal(new Set(found.more).size, 3, "so do the streams that go on");
  assert.match(found.fourth, /^bad-option: .*3 streams at once.*streams/);
  assert.match(found.gone, /^bad-option: this fork was unloaded/);
  assert.ok(found.same, "a fork is a copy");
  assert.ok(found.answer);
  assert.match(found.after, /^bad-option: the engine was unloaded/);
});

test("an engine for one stream says what forks need", async () => {
  const said = await here.inPage(async ({ load }) => {
    const engine = await load();
    const said = await engine.fork().catch(({ code, message }) => `${code}: ${message}`);
    await engine.unload();
    return said;
  });
  assert.match(said, /^bad-option: the engine was loaded for 1 stream at once.*streams/);
});
