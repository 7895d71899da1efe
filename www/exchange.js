// Conversations as JSON, in OpenAI's form, out and in. What comes in may come from anybody: it is checked whole, and
// bounded, before anything of it is kept.

export const MOST = { bytes: 32_000_000, chats: 500, messages: 10_000, characters: 1_000_000, title: 120 };

/** What is wrong with a file, as a sentence. */
export class ExchangeError extends Error {}

const wrong = (sentence) => {
  throw new ExchangeError(sentence);
};

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const quoted = (value) => {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "nothing");
  return `“${text.length > 40 ? `${text.slice(0, 40)}…` : text}”`;
};

const textOf = (content, where) => {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return wrong(`${where} has no text in its content.`);
  const texts = content.map((part) =>
    isObject(part) && part.type === "text" && typeof part.text === "string"
      ? part.text
      : wrong(`${where} has a part that is no text; only text can be read.`),
  );
  return texts.join("\n");
};

const ROLES = { system: "system", developer: "system", user: "user", assistant: "assistant" };

const messageOf = (given, where) => {
  if (!isObject(given)) return wrong(`${where} is no message.`);
  const role = Object.hasOwn(ROLES, given.role) ? ROLES[given.role] : undefined;
  if (!role) return wrong(`${where} has the role ${quoted(given.role)}; only system, user and assistant can be read.`);
  const content = textOf(given.content ?? "", where);
  const thoughts = given.thoughts ?? given.reasoning_content ?? "";
  if (typeof thoughts !== "string") return wrong(`${where} has thoughts that are no text.`);
  if (content.length + thoughts.length > MOST.characters)
    return wrong(`${where} has more than ${MOST.characters} characters.`);
  return { role, content, ...(thoughts && { thoughts }) };
};

/** User and model in turn: what one of them said in several messages is one. */
const inTurn = (messages, where) => {
  const turns = [];
  for (const message of messages) {
    const last = turns.at(-1);
    if (last?.role !== message.role) turns.push({ ...message });
    else last.content = `${last.content}\n\n${message.content}`;
  }
  if (turns[0]?.role === "assistant") wrong(`${where} begins with an answer; it has to begin with a question.`);
  return turns;
};

/** As the list names a conversation that has no name. */
export const titleOf = (text) => {
  const line = text.trim().split("\n", 1)[0].trim();
  if (!line) return "New conversation";
  return line.length > 60 ? `${line.slice(0, 60).replace(/\s+\S*$/, "")} …` : line;
};

const chatOf = (given, where) => {
  const list = Array.isArray(given) ? given : given?.messages;
  if (!Array.isArray(list)) return wrong(`${where} has no list of messages.`);
  if (list.length > MOST.messages) return wrong(`${where} has ${list.length} messages; ${MOST.messages} are the most.`);
  const all = list.map((message, n) => messageOf(message, `Message ${n + 1} of ${where.toLowerCase()}`));
  const system = all.filter(({ role }) => role === "system").map(({ content }) => content);
  const messages = inTurn(
    all.filter(({ role }) => role !== "system"),
    where,
  );
  if (!messages.length && !system.length) return wrong(`${where} is empty.`);
  const title = typeof given.title === "string" ? given.title.trim().slice(0, MOST.title) : "";
  return {
    title: title || titleOf(messages[0]?.content ?? ""),
    named: Boolean(title),
    system: system.join("\n\n"),
    messages,
  };
};

/** The conversations of a file; an `ExchangeError` says what is wrong with it. */
export const readChats = (text) => {
  let given;
  try {
    given = JSON.parse(text);
  } catch {
    return wrong("This file is no JSON.");
  }
  if (Array.isArray(given) ? given.length === 0 : !isObject(given))
    return wrong("This file has no conversation in it.");
  const many = Array.isArray(given?.conversations)
    ? given.conversations
    : Array.isArray(given) && !given.every((one) => isObject(one) && "role" in one)
      ? given
      : null;
  if (!many) return [chatOf(given, "The conversation")];
  if (many.length === 0) return wrong("This file has no conversation in it.");
  if (many.length > MOST.chats) return wrong(`This file has ${many.length} conversations; ${MOST.chats} are the most.`);
  return many.map((one, n) => chatOf(one, `Conversation ${n + 1}`));
};

export const writeChat = ({ title, system, messages }) => ({
  title,
  messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
});

export const fileName = (title) =>
  `${
    title
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-|-$/g, "")
      .slice(0, 60) || "chat"
  }.json`;
