// Conversations out to JSON and in again: what is taken in is checked whole, and what is wrong is said in a sentence.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { ROOT } from "./harness.js";

const { ExchangeError, MOST, fileName, readChats, titleOf, writeChat } = await import(
  pathToFileURL(join(ROOT, "www", "exchange.js"))
);

const chat = {
  title: "On bread",
  system: "You are a baker.",
  messages: [
    { role: "user", content: "Is it done?" },
    { role: "assistant", content: "Almost.", thoughts: "Ten minutes more." },
  ],
};
const read = (value) => readChats(typeof value === "string" ? value : JSON.stringify(value));
const user = (content) => ({ role: "user", content });

test("what goes out comes in as it was, one or many", () => {
  const [again] = read(writeChat(chat));
  assert.deepEqual(again, { ...chat, named: true });
  const many = read({ conversations: [writeChat(chat), writeChat({ ...chat, title: "Two", system: "" })] });
  assert.deepEqual(
    many.map(({ title, system }) => [title, system]),
    [
      ["On bread", "You are a baker."],
      ["Two", ""],
    ],
  );
});

test("OpenAI's other forms come in too", () => {
  const parts = [
    {
      role: "user",
      content: [
        { type: "text", text: "a" },
        { type: "text", text: "b" },
      ],
    },
  ];
  assert.equal(read(parts)[0].messages[0].content, "a\nb");
  assert.equal(read([{ role: "developer", content: "d" }, user("q")])[0].system, "d");
  assert.equal(
    read([user("q"), { role: "assistant", content: "a", reasoning_content: "r" }])[0].messages[1].thoughts,
    "r",
  );
  assert.deepEqual(read([user("a"), user("b")])[0].messages, [user("a\n\nb")]);
  assert.equal(read([user("What is rain?\nAnd snow?")])[0].title, "What is rain?");
});

test("a file that is hostile, or is none, is refused in a sentence, and nothing of it is kept", () => {
  const cases = [
    ["", /no JSON/],
    ["<html>", /no JSON/],
    ["null", /no conversation/],
    ["3", /no conversation/],
    ["[]", /no conversation/],
    ["{}", /no list of messages/],
    [{ messages: {} }, /no list of messages/],
    [{ messages: [] }, /is empty/],
    [{ messages: [null] }, /Message 1 .* is no message/],
    [{ messages: [{ role: "tool", content: "x" }] }, /the role “tool”/],
    [{ messages: [{ role: "__proto__", content: "x" }] }, /the role “__proto__”/],
    [{ messages: [{ role: "constructor", content: "x" }] }, /the role/],
    [{ messages: [{ role: { a: 1 }, content: "x" }] }, /the role/],
    [{ messages: [{ role: "user", content: 4 }] }, /no text/],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, /only text/],
    [{ messages: [{ role: "assistant", content: "hello" }] }, /begins with an answer/],
    [{ messages: [{ role: "user", content: "x", thoughts: {} }] }, /thoughts that are no text/],
    [{ messages: [user("x".repeat(MOST.characters + 1))] }, /more than 1000000 characters/],
    [{ messages: Array(MOST.messages + 1).fill(user("x")) }, /10001 messages/],
    [{ conversations: [] }, /no conversation/],
    [{ conversations: Array(MOST.chats + 1).fill(writeChat(chat)) }, /501 conversations/],
    [{ conversations: [writeChat(chat), { messages: [{ role: "x" }] }] }, /Message 1 of conversation 2/],
    ["[".repeat(100_000), /no JSON/],
    ["[".repeat(5000) + "]".repeat(5000), /Message 1|no list|is no message/],
  ];
  for (const [file, sentence] of cases) {
    const name = JSON.stringify(file).slice(0, 80);
    assert.throws(
      () => read(file),
      (error) => error instanceof ExchangeError && sentence.test(error.message) && error.message.endsWith("."),
      name,
    );
  }
});

test("names", () => {
  assert.equal(titleOf("  \n "), "New conversation");
  assert.ok(titleOf("word ".repeat(40)).length <= 64);
  assert.equal(fileName("../../Über <brot>?"), "Über-brot.json");
  assert.equal(fileName("///"), "chat.json");
});
