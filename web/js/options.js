// What a user can get wrong, said in words before anything is started.
import { BadOptionError } from "./errors.js";

const wrong = (name, value, wanted) => {
  const shown = typeof value === "string" ? JSON.stringify(value) : String(value);
  throw new BadOptionError(`${name}: ${shown}; ${wanted} is wanted`);
};

const oneOf =
  (...values) =>
  (name, value) =>
    values.includes(value) ? value : wrong(name, value, values.map((v) => `"${v}"`).join(" or "));

const integer = (least, most) => (name, value) =>
  Number.isInteger(value) && value >= least && value <= most
    ? value
    : wrong(name, value, `a whole number from ${least} to ${most}`);

const number = (least, most) => (name, value) =>
  Number.isFinite(value) && value >= least && value <= most
    ? value
    : wrong(name, value, `a number from ${least} to ${most}`);

const boolean = (name, value) => (typeof value === "boolean" ? value : wrong(name, value, "true or false"));

const texts = (name, value) =>
  Array.isArray(value) && value.every((text) => typeof text === "string")
    ? value
    : wrong(name, value, "a list of strings");

/** Checks what is there of `known`, and refuses what is in neither `known` nor `others`. */
function checked(options, known, others) {
  if (options === null || typeof options !== "object") wrong("options", options, "an object");
  const out = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    if (known[name]) out[name] = known[name](name, value);
    else if (!others.includes(name)) throw new BadOptionError(`${name}: there is no such option`);
  }
  return out;
}

const CACHE = {
  policy: oneOf("streaming", "window", "dense", "recompute"),
  sinks: integer(0, 2 ** 28),
  window: integer(1, 2 ** 28),
  chunk: integer(1, 4096),
  kv: oneOf("f16", "f32", "q8_0", "q4_0"),
  activations: oneOf("f32", "int8"),
};

const STREAM = {
  temperature: number(0, 1e6),
  topK: integer(0, 2 ** 31),
  topP: number(0, 1),
  minP: number(0, 1),
  repeatPenalty: number(1e-3, 1e3),
  presencePenalty: number(-1e6, 1e6),
  frequencyPenalty: number(-1e6, 1e6),
  seed: integer(0, Number.MAX_SAFE_INTEGER),
  pace: oneOf("interactive", "throughput"),
  stop: texts,
  stopAtEos: boolean,
  // Without a limit there is nothing to say.
  maxTokens: (name, value) => (value === Infinity ? undefined : integer(0, Number.MAX_SAFE_INTEGER)(name, value)),
};

/** What an output is held to, as the engine of grammars takes it. */
const HELD = {
  schema: (name, value) => (typeof value === "string" ? value : jsonOf(name, value)),
  regex: (name, value) => text(name, value),
  grammar: (name, value) => {
    if (!text(name, value).includes("::=")) return value;
    const gbnf = 'this is GBNF; grammars are written as Lark\'s are here: start: "yes" | "no"';
    throw new BadOptionError(`${name}: ${gbnf}`);
  },
};

function jsonOf(name, value) {
  try {
    const json = value === null ? undefined : JSON.stringify(value);
    if (typeof json === "string") return json;
  } catch {
    // it is within itself, or has numbers that JSON has not
  }
  return wrong(name, value, "a JSON schema, as an object or as text,");
}

/** Settings of an output, `held: { kind, source }` among them where it is held to something. */
function holding({ schema, regex, grammar, ...settings }) {
  const [held, second] = Object.entries({ schema, regex, grammar }).filter(([, source]) => source !== undefined);
  if (second) throw new BadOptionError(`${second[0]}: an output is held to one thing; leave it out, or ${held[0]}`);
  if (!held) return settings;
  if (settings.stopAtEos === false)
    throw new BadOptionError(`stopAtEos: an output ends where its ${held[0]} does; leave it out`);
  return { ...settings, held: { kind: held[0], source: held[1] } };
}

const LOAD = {
  cache: boolean,
  streams: integer(1, 256),
  tune: oneOf("on", "off", "again"),
  assets: (name, value) => folderOf(name, value),
  sha256: (name, value) =>
    /^[0-9a-f]{64}$/i.test(value) ? value.toLowerCase() : wrong(name, value, "64 hexadecimal digits"),
};

export const cacheOptions = (options) => checked(options, CACHE, []);

const freshSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export const streamOptions = (options) =>
  holding({ seed: freshSeed(), ...checked(options, { ...STREAM, ...HELD }, ["signal"]) });

/** Of an answer: it ends where the model ends it. */
export function answerOptions(options) {
  const { stopAtEos: _, ...known } = STREAM;
  const { think, ...settings } = checked(options, { ...known, ...HELD, think: boolean }, ["signal"]);
  return { think, settings: holding({ seed: freshSeed(), ...settings }) };
}

const text = (name, value) => (typeof value === "string" ? value : wrong(name, value, "a string"));

/** Messages in OpenAI's form: the user's and the model's in turn, as many of the one as of the other. */
function messages(name, value) {
  if (!Array.isArray(value)) wrong(name, value, "a list of messages");
  const kept = value.map((message, at) => {
    const role = at % 2 ? "assistant" : "user";
    if (message?.role !== role || typeof message.content !== "string")
      throw new BadOptionError(
        `${name}: message ${at + 1}: a message of role "${role}" with a string as content is wanted`,
      );
    const { content, thoughts } = message;
    return typeof thoughts === "string" && thoughts ? { role, content, thoughts } : { role, content };
  });
  if (kept.length % 2) throw new BadOptionError(`${name}: the last message has no answer; say it with send`);
  return kept;
}

const CONVERSATION = {
  system: text,
  template: text,
  window: CACHE.window,
  chunk: CACHE.chunk,
  kv: CACHE.kv,
  activations: CACHE.activations,
  think: boolean,
  messages,
};

export const conversationOptions = (options) => checked(options, CONVERSATION, []);

export function loadOptions(options) {
  const others = ["model", "onProgress", "onWarning", "signal", "worker"];
  const known = { ...CACHE, ...LOAD };
  const { cache = true, sha256, tune = "on", assets, streams = 1, ...rest } = checked(options, known, others);
  return { model: modelOf(options.model), keep: cache, sha256, tune, assets, streams, cache: rest };
}

const key = (name, value) =>
  typeof value === "string" && value.length > 0 ? value : wrong(name, value, "a string that is not empty");

/** Of a server: where it is, and what it is told first. */
export function connectOptions(url, options = {}) {
  const others = ["onProgress", "onWarning", "signal"];
  const args = checked(options, { key, streams: integer(1, 256) }, others);
  const wanted = "the http or https address of a server";
  if (typeof url !== "string" && !(url instanceof URL)) wrong("url", url, wanted);
  if (!URL.canParse(url, here())) wrong("url", url, wanted);
  const server = new URL(url, here());
  return /^(https?|wss?):$/.test(server.protocol) ? { server, args } : wrong("url", server.href, wanted);
}

const here = () => globalThis.document?.baseURI ?? globalThis.location?.href;

/** The address of a folder in full, with its last slash. */
function folderOf(name, value) {
  if (typeof value !== "string" && !(value instanceof URL)) wrong(name, value, "the URL of a folder");
  try {
    const url = new URL(value, here());
    if (!url.pathname.endsWith("/")) url.pathname += "/";
    return url.href;
  } catch {
    return wrong(name, value, "a URL that can be resolved");
  }
}

/** A URL in full, or a Blob, or the Blobs of one split model: what a worker can read without a copy in its memory. */
function modelOf(model) {
  if (Array.isArray(model)) {
    const files = model.length > 0 && model.every((file) => file instanceof Blob);
    return files ? model : wrong("model", model, "a list of Files, one at least");
  }
  if (model instanceof Blob) return model;
  if (model instanceof ArrayBuffer || ArrayBuffer.isView(model)) return new Blob([model]);
  if (typeof model !== "string" && !(model instanceof URL))
    wrong("model", model, "a URL, a File, a list of Files, a Blob or an ArrayBuffer");
  try {
    const url = new URL(model, here());
    if (!["http:", "https:", "blob:", "data:"].includes(url.protocol))
      wrong("model", url.href, "an http or https address");
    url.hash = "";
    return url.href;
  } catch (error) {
    if (error instanceof BadOptionError) throw error;
    return wrong("model", model, "a URL that can be resolved");
  }
}
