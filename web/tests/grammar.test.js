// Outputs that are held to JSON schemas, regular expressions and grammars. The model's words are noise: all that is right
// about an output is the grammar's doing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { answerOptions, streamOptions } from "../js/options.js";
import { TINY, nativeStream, packagePages } from "./harness.js";

const here = packagePages();

const object = (properties) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
const whole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;
const keys = (value, ...names) => assert.deepEqual(Object.keys(value), names);

const PERSON = object({ name: { type: "string", maxLength: 8 }, age: { type: "integer", minimum: 0, maximum: 99 } });

function expectPerson(text) {
  const value = JSON.parse(text);
  keys(value, "name", "age");
  assert.ok(typeof value.name === "string" && [...value.name].length <= 8, text);
  assert.ok(whole(value.age, 0, 99), text);
}

/** Schemas, and what says whether a value is valid by them. Of the first and the last the native binary is asked, too. */
const SCHEMAS = [
  [PERSON, (_, text) => expectPerson(text)],
  [
    { type: "array", items: { enum: ["red", "green", 3, null] }, minItems: 2, maxItems: 4 },
    (value, text) =>
      assert.ok(
        value.length >= 2 && value.length <= 4 && value.every((one) => ["red", "green", 3, null].includes(one)),
        text,
      ),
  ],
  [
    object({ at: { type: "string", format: "date" }, sure: { type: "boolean" } }),
    ({ at, sure }, text) => {
      assert.equal(new Date(`${at}T00:00:00Z`).toISOString().slice(0, 10), at, text);
      assert.equal(typeof sure, "boolean", text);
    },
  ],
  [
    {
      $defs: { point: object({ x: { type: "integer", minimum: -9, maximum: 9 } }) },
      ...object({ from: { $ref: "#/$defs/point" }, to: { anyOf: [{ $ref: "#/$defs/point" }, { const: "home" }] } }),
    },
    ({ from, to }, text) => {
      assert.ok(whole(from.x, -9, 9), text);
      assert.ok(to === "home" || whole(to.x, -9, 9), text);
    },
  ],
];

test("outputs are valid, their engine comes when it is asked for, and tokens are the native binary's", async () => {
  const asked = [];
  here.faults = (req) => {
    if (req.url.includes("brooklet_grammar")) asked.push(req.url);
    return false;
  };
  const first = await here.inPage(async ({ load, collect }) => {
    globalThis.engine = await load({ window: 120, kv: "f32" });
    return (await collect(engine.stream("once", { maxTokens: 3, temperature: 0 }))).length;
  });
  assert.equal(first, 3);
  assert.deepEqual(asked, [], "without a grammar nothing of it is loaded");

  const schemas = SCHEMAS.map(([schema]) => schema);
  const outputs = await here.inPage(
    async ({ said }, { schemas }) => {
      const outputs = [];
      for (const [at, schema] of schemas.entries())
        for (const temperature of [0, 1]) {
          await engine.reset();
          outputs.push({
            at,
            temperature,
            ...(await said(engine.stream("once upon", { schema, temperature, seed: at, maxTokens: 150 }))),
          });
        }
      return outputs;
    },
    { schemas },
  );
  assert.equal(outputs.length, 2 * SCHEMAS.length, JSON.stringify(outputs));
  for (const { at, text, ended, temperature, ids } of outputs) {
    assert.equal(ended, "end of text", text);
    SCHEMAS[at][1](JSON.parse(text), text);
    if (temperature || at % 3) continue;
    const args = ["--json-schema", JSON.stringify(schemas[at]), "--kv", "f32", "--window", "120", "--tune", "off"];
    const native = nativeStream(TINY, "once upon", 150, args);
    const tokens = native.pieces.map(({ token }) => token).filter((token) => token !== undefined);
    assert.deepEqual(ids, tokens.slice(0, ids.length));
    assert.ok(tokens.length <= ids.length + 1, "but for the token that ends it");
  }
  assert.equal(asked.filter((url) => url.endsWith(".wasm")).length, 1, asked.join(" "));
});

test("regular expressions and grammars", async () => {
  const found = await here.inPage(async ({ said }) => {
    const options = { temperature: 1, maxTokens: 60 };
    const regex = [];
    const grammar = [];
    for (const seed of [1, 2, 3]) {
      regex.push(await said(engine.stream("a", { ...options, seed, regex: "(yes|no|perhaps) [0-9]{3}[a-f]" })));
      grammar.push(
        await said(engine.stream("a", { ...options, seed, grammar: 'start: N ("+" N)~2\nN: /[1-9][0-9]?/' })),
      );
    }
    // Cut short, it is not whole.
    const cut = await said(engine.stream("a", { temperature: 0, maxTokens: 4, regex: "[a-z]{40}" }));
    return { regex, grammar, cut };
  });
  for (const { text, ended } of found.regex) {
    assert.match(text, /^(yes|no|perhaps) [0-9]{3}[a-f]$/);
    assert.equal(ended, "end of text");
  }
  for (const { text } of found.grammar) assert.match(text, /^[1-9][0-9]?(\+[1-9][0-9]?){2}$/);
  assert.equal(found.cut.ended, "length");
  assert.equal(found.cut.tokens, 4);
  assert.match(found.cut.text, /^[a-z]+$/);
});

test("what cannot be used is a sentence, and changes nothing", async () => {
  const { messages, before, after, text } = await here.inPage(async ({ said }) => {
    const wrong = async (options) => {
      const stream = engine.stream("a prompt that is not fed", options);
      return stream.next().then(
        () => "nothing",
        ({ name, code, message }) => `${name} ${code} ${message}`,
      );
    };
    const before =
      (await said(engine.stream("b", { maxTokens: 1 }))) && engine.info && (await engine.tokenize("b")).length;
    const stats = async () => {
      const stream = engine.stream("", { maxTokens: 1, temperature: 0 });
      await said(stream);
      return stream.stats.position;
    };
    const first = await stats();
    const messages = [
      await wrong({ schema: { type: "array", items: { uniqueItems: true } } }),
      await wrong({ schema: "{" }),
      await wrong({ schema: false }),
      await wrong({ regex: "(" }),
      await wrong({ regex: "(?=a)b" }),
      await wrong({ grammar: "begin: A" }),
      await wrong({ regex: "(".repeat(20000) + ")".repeat(20000) }),
    ];
    const last = await stats();
    const { text } = await said(engine.stream("a", { regex: "ok|fine", maxTokens: 9 }));
    return { messages, before: first, after: last, text };
  });
  assert.match(
    messages[0],
    /^BadOptionError bad-option schema: the JSON schema cannot be used, at \/items: "uniqueItems" is not supported; leave it out$/,
  );
  assert.match(messages[1], /^BadOptionError bad-option schema: the JSON schema is not JSON: /);
  assert.match(messages[2], /^BadOptionError bad-option schema: .*false, which allows nothing$/);
  assert.match(messages[3], /^BadOptionError bad-option regex: the regular expression cannot be used: /);
  assert.match(messages[4], /^BadOptionError bad-option regex: the regular expression cannot be used: /);
  assert.match(messages[5], /^BadOptionError bad-option grammar: the grammar cannot be used: /);
  assert.match(messages[6], /^BadOptionError bad-option regex: the regular expression cannot be used: /);
  assert.equal(after, before + 1, "no prompt was fed");
  assert.match(text, /^(ok|fine)$/, "and the engine of grammars works on");
});

test("options that go together, and that do not", () => {
  const held = ({ seed: _, ...settings }) => settings;
  assert.deepEqual(held(streamOptions({ schema: { type: "object" } })), {
    held: { kind: "schema", source: '{"type":"object"}' },
  });
  assert.deepEqual(held(streamOptions({ schema: "true", stopAtEos: true })).held, { kind: "schema", source: "true" });
  assert.deepEqual(answerOptions({ regex: "a", seed: 1 }).settings, { seed: 1, held: { kind: "regex", source: "a" } });
  const circular = {};
  circular.self = circular;
  for (const [options, message] of [
    [{ schema: 7n }, /^schema: 7; a JSON schema, as an object or as text, is wanted$/],
    [{ schema: null }, /^schema: null; a JSON schema/],
    [{ schema: circular }, /^schema: .*a JSON schema/],
    [{ schema: () => 1 }, /^schema: .*a JSON schema/],
    [{ regex: /a/ }, /^regex: \/a\/; a string is wanted$/],
    [{ grammar: 'root ::= "a"' }, /^grammar: this is GBNF; grammars are written as Lark's are here/],
    [{ schema: {}, regex: "a" }, /^regex: an output is held to one thing; leave it out, or schema$/],
    [{ regex: "a", stopAtEos: false }, /^stopAtEos: an output ends where its regex does; leave it out$/],
  ])
    assert.throws(() => streamOptions(options), { code: "bad-option", message }, String(message));
});

test("a stream that is left in the middle of an output goes on without it", async () => {
  const found = await here.inPage(async ({ said }) => {
    const regex = "[a-m]{30}";
    await engine.reset();
    const stream = engine.stream("a", { temperature: 0, regex });
    let text = "";
    let taken = 0;
    for await (const piece of stream) {
      text += piece.text;
      taken += 1;
      if (taken === 3) break;
    }
    const { position } = stream.stats;
    const rest = await said(engine.stream("", { temperature: 0, regex: "[n-z]{5}" }));
    await engine.reset();
    const again = await said(engine.stream("a", { temperature: 0, regex }));
    return { text, taken, position, prompt: stream.stats.promptTokens, rest, again };
  });
  assert.equal(found.position, found.prompt + found.taken, "what was not taken has never been");
  assert.match(found.rest.text, /^[n-z]{5}$/);
  assert.match(found.again.text, /^[a-m]{30}$/);
  assert.ok(found.again.text.startsWith(found.text));
});

test("answers, requests in OpenAI's shape, and forks", async () => {
  const found = await here.inPage(
    async ({ load, said }, { PERSON }) => {
      const engine = await load({ window: 120, streams: 3 });
      const options = { schema: PERSON, maxTokens: 150, temperature: 1 };
      const chat = engine.conversation({ template: "chatml", window: 200 });
      const code = async (promise) => promise.then(() => "nothing").catch(({ code, message }) => `${code}: ${message}`);
      const answers = [await said(chat.send("who?", { ...options, seed: 1 }))];
      const refused = await code(chat.send("and?", { schema: { not: {} } }).next());
      answers.push(await said(chat.send("and who?", { ...options, seed: 2 })));
      answers.push(await said(chat.regenerate({ ...options, seed: 3 })));
      answers.push(await said(chat.edit("who else?", { ...options, seed: 4 })));
      const free = await said(chat.send("well?", { temperature: 0, maxTokens: 5 }));
      // Left in the middle.
      const left = chat.send("go on", { regex: "[a-z]{50}", temperature: 0 });
      await left.next();
      await left.stop();
      const cut = chat.messages.at(-1).content;
      answers.push(await said(chat.send("who now?", { ...options, seed: 5 })));
      // A template whose answers begin with thoughts.
      const turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
      const template = `${turns}{% if add_generation_prompt %}assistant: <think>\n{% endif %}{# </think> #}`;
      const thinker = engine.conversation({ template, window: 200 });
      const thinks = await code(thinker.send("who?", { regex: "a" }).next());
      const completions = engine.chat.completions.with({ template: "chatml", window: 200 });
      const request = { messages: [{ role: "user", content: "who?" }], max_tokens: 150, seed: 1, temperature: 1 };
      const json_schema = { name: "person", strict: true, schema: PERSON };
      const { choices } = await completions.create({
        ...request,
        n: 2,
        response_format: { type: "json_schema", json_schema },
      });
      const webllm = { type: "json_object", schema: JSON.stringify(PERSON) };
      choices.push(...(await completions.create({ ...request, response_format: webllm })).choices);
      let streamed = "";
      const chunks = await completions.create({
        ...request,
        stream: true,
        response_format: { type: "json_schema", json_schema },
      });
      for await (const { choices } of chunks) streamed += choices[0]?.delta.content ?? "";
      const any = await completions.create({ ...request, max_tokens: 6, response_format: { type: "json_object" } });
      const wrong = [
        await code(completions.create({ ...request, response_format: { type: "grammar", grammar: "" } })),
        await code(completions.create({ ...request, response_format: { type: "json_schema" } })),
        await code(completions.create({ ...request, response_format: {} })),
      ];
      // Forks, side by side, each held to something of its own.
      await engine.reset({ window: 120 });
      await engine.feed("once upon");
      const forks = [await engine.fork(), await engine.fork()];
      const regexes = ["[ab]{12}", "[cd]{12}", "[ef]{12}"];
      const sides = await Promise.all(
        [engine, ...forks].map((one, at) => said(one.stream("", { regex: regexes[at], temperature: 1, seed: at }))),
      );
      await engine.unload();
      return {
        answers,
        refused,
        thinks,
        messages: chat.messages.length,
        free: free.tokens,
        cut,
        contents: choices.map(({ message, finish_reason }) => [message.content, finish_reason]),
        streamed,
        any: any.choices[0].message.content,
        wrong,
        sides: sides.map(({ text }) => text),
      };
    },
    { PERSON },
  );
  assert.equal(found.message, undefined, found.message);
  for (const { text } of found.answers) expectPerson(text);
  assert.match(found.refused, /^bad-option: schema: the JSON schema cannot be used.*"not" is not supported/);
  assert.match(found.thinks, /^bad-option: the model thinks before it answers.*think: false/);
  assert.equal(found.messages, 10, "what was refused was not said");
  assert.equal(found.free, 5);
  assert.match(found.cut, /^[a-z]+$/);
  assert.equal(found.contents.length, 3);
  for (const [text, reason] of found.contents) {
    expectPerson(text);
    assert.equal(reason, "stop");
  }
  expectPerson(found.streamed);
  assert.match(found.any, /^\{/);
  assert.match(found.wrong[0], /^bad-option: response_format: type "grammar"; text, json_object and json_schema work$/);
  assert.match(found.wrong[1], /^bad-option: response_format: json_schema.schema is wanted: a JSON schema$/);
  assert.match(found.wrong[2], /^bad-option: response_format: type undefined; /);
  ["[ab]{12}", "[cd]{12}", "[ef]{12}"].forEach((regex, at) => assert.match(found.sides[at], new RegExp(`^${regex}$`)));
});
