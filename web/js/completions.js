// `chat.completions.create` in OpenAI's shape, over conversations: a request that goes on with what the last one has said
// feeds its last message alone, and no other finds the past cut.
import { BadOptionError } from "./errors.js";

const FINISH = { "end of text": "stop", stop: "stop", stopped: "stop", length: "length" };

/** What a request may not ask for, as it would change what comes of it. */
const REFUSED = {
  tools: (value) => value?.length > 0,
  functions: (value) => value?.length > 0,
  logprobs: (value) => value === true,
  logit_bias: (value) => value && Object.keys(value).length > 0,
  audio: Boolean,
};

function expectPossible(request) {
  if (request === null || typeof request !== "object") throw new BadOptionError("create: an object is wanted");
  for (const [name, asked] of Object.entries(REFUSED)) {
    if (asked(request[name])) throw new BadOptionError(`${name}: brooklet does not do this yet; leave it out`);
  }
  const { n = 1, stream } = request;
  if (!Number.isInteger(n) || n < 1 || n > 16)
    throw new BadOptionError(`n: ${n}; a whole number from 1 to 16 is wanted`);
  if (stream && n > 1) throw new BadOptionError("n: more than one choice is not streamed; leave stream or n out");
}

function textOf(content, where) {
  if (typeof content === "string") return content;
  const texts =
    Array.isArray(content) && content.every((part) => part?.type === "text" && typeof part.text === "string");
  if (!texts) throw new BadOptionError(`${where}: a string is wanted as content, or a list of parts of type "text"`);
  return content.map(({ text }) => text).join("");
}

/** System prompt, what was said before, and what is said now. */
function parted({ messages }) {
  if (!Array.isArray(messages) || messages.length === 0)
    throw new BadOptionError("messages: a list of messages is wanted, one at least");
  const all = messages.map((message, at) => {
    const { role, content } = message ?? {};
    return { role: role === "developer" ? "system" : role, content: textOf(content, `messages: message ${at + 1}`) };
  });
  const system = all[0].role === "system" ? all.shift().content : undefined;
  const now = all.pop();
  if (now?.role !== "user") throw new BadOptionError("messages: the last message is wanted from the user");
  return { system, before: all, now: now.content };
}

/** The JSON schema that an answer is held to, if it is to one. WebLLM's clients give it beside `json_object`, as text. */
function schemaOf({ response_format: format }) {
  switch (format?.type) {
    case undefined:
      if (format === undefined || format === null) return undefined;
      break;
    case "text":
      return undefined;
    case "json_object":
      return format.schema ?? { type: "object" };
    case "json_schema": {
      const schema = format.json_schema?.schema;
      if (schema !== undefined) return schema;
      throw new BadOptionError("response_format: json_schema.schema is wanted: a JSON schema");
    }
  }
  const type = JSON.stringify(format.type) ?? "undefined";
  throw new BadOptionError(`response_format: type ${type}; text, json_object and json_schema work`);
}

function answerOf(request, choice) {
  const { stop } = request;
  const options = {
    temperature: request.temperature,
    topP: request.top_p,
    topK: request.top_k,
    minP: request.min_p,
    repeatPenalty: request.repetition_penalty,
    presencePenalty: request.presence_penalty,
    frequencyPenalty: request.frequency_penalty,
    maxTokens: request.max_completion_tokens ?? request.max_tokens,
    stop: stop === null ? undefined : typeof stop === "string" ? [stop] : stop,
    // Choices of one request differ, and come again with the same seed.
    seed: Number.isInteger(request.seed) ? Math.abs(request.seed) + choice : undefined,
    schema: schemaOf(request),
    signal: request.signal,
  };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));
}

const same = (some, others) =>
  some.length === others.length &&
  some.every(({ role, content }, at) => role === others[at].role && content === others[at].content);

export class Completions {
  #engine;
  #options = {};
  #conversation;
  #answer;
  /** Requests wait for one another: none cuts another's answer short. */
  #turn = Promise.resolve();

  constructor(engine) {
    this.#engine = engine;
  }

  /** For conversations of requests from now on: `window`, say. */
  with(options) {
    this.#options = options;
    this.#conversation = undefined;
    return this;
  }

  /** The text of the last answer so far. */
  get message() {
    return this.#conversation?.messages.at(-1)?.content ?? "";
  }

  /** Forgets what was said. */
  reset() {
    this.#conversation = undefined;
  }

  /** Ends the answer under way where it is. */
  interrupt() {
    return this.#answer?.stop();
  }

  async create(request) {
    expectPossible(request);
    const parts = parted(request);
    answerOf(request, 0);
    return request.stream ? this.#streamed(request, parts) : this.#whole(request, parts);
  }

  /** Waits for its turn, and gives what ends it. */
  async #turnOf() {
    const before = this.#turn;
    let done;
    this.#turn = new Promise((resolve) => (done = resolve));
    await before;
    return done;
  }

  /** The answer that a request asks for, from the conversation that it goes on with, or from a new one. */
  #begin(request, { system, before, now }, choice) {
    const options = answerOf(request, choice);
    const old = this.#conversation;
    const said = old && old.system === (system ?? "") ? old.messages : undefined;
    if (said && same(said, before)) return old.send(now, options);
    if (said?.length && same(said.slice(0, -2), before))
      return said.at(-2).content === now ? old.regenerate(options) : old.edit(now, options);
    this.#conversation = this.#engine.conversation({ ...this.#options, system, messages: before });
    return this.#conversation.send(now, options);
  }

  #head(request, object) {
    const id = `chatcmpl-${crypto.randomUUID()}`;
    return { id, object, created: Math.floor(Date.now() / 1000), model: request.model ?? this.#engine.info.model.name };
  }

  async #whole(request, parts) {
    const done = await this.#turnOf();
    try {
      return await this.#choices(request, parts);
    } finally {
      done();
    }
  }

  async #choices(request, parts) {
    const { n = 1 } = request;
    const head = this.#head(request, "chat.completion");
    const choices = [];
    const counts = [];
    for (let index = 0; index < n; index += 1) {
      this.#answer = this.#begin(request, parts, index);
      let [content, thoughts] = ["", ""];
      for await (const { text, thought } of this.#answer) {
        if (thought) thoughts += text;
        else content += text;
      }
      const { stats } = this.#answer;
      const message = { role: "assistant", content, ...(thoughts && { reasoning_content: thoughts }) };
      choices.push({ index, message, logprobs: null, finish_reason: FINISH[stats.stopReason] });
      counts.push(stats);
    }
    return { ...head, choices, usage: usageOf(counts) };
  }

  async *#streamed(request, parts) {
    const done = await this.#turnOf(); // not before somebody listens
    const head = this.#head(request, "chat.completion.chunk");
    const chunk = (delta, finish_reason = null) => ({ ...head, choices: [{ index: 0, delta, finish_reason }] });
    try {
      const answer = (this.#answer = this.#begin(request, parts, 0));
      yield chunk({ role: "assistant", content: "" });
      for await (const { text, thought } of answer)
        yield chunk(thought ? { reasoning_content: text } : { content: text });
      yield chunk({}, FINISH[answer.stats.stopReason]);
      if (request.stream_options?.include_usage) yield { ...head, choices: [], usage: usageOf([answer.stats]) };
    } finally {
      done();
    }
  }
}

function usageOf(counts) {
  const [{ position, generatedTokens, fed, prefillTps, decodeTps, ttftMs }] = counts;
  const prompt = Math.max(fed, position - generatedTokens);
  const said = counts.reduce((sum, { generatedTokens }) => sum + generatedTokens, 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: said,
    total_tokens: prompt + said,
    prompt_tokens_details: { cached_tokens: prompt - fed },
    // As WebLLM has it.
    extra: {
      prefill_tokens_per_s: prefillTps,
      decode_tokens_per_s: decodeTps,
      time_to_first_token_s: ttftMs / 1000,
    },
  };
}
