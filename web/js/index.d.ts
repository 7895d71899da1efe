/**
 * brooklet streams text from a language model on WebGPU and never has to stop: attention keeps a few
 * *sink* tokens and a *ring* of recent ones on the GPU, so memory and time per token stay flat.
 * What has left the window is forgotten.
 *
 * ```js
 * import { Engine } from "brooklet";
 * const engine = await Engine.load({ model: "/models/SmolLM2-135M-Instruct.Q4_1.gguf" });
 * for await (const { text } of engine.stream("Once upon a time")) document.body.append(text);
 * ```
 */

/** Which tokens a query may look back on; see `docs/cache.md`. */
export type Policy = "streaming" | "window" | "dense" | "recompute";

/** What the cache should be. What is left out is the default. */
export interface CacheOptions {
  /** Default `"streaming"`. */
  policy?: Policy;
  /** First tokens kept for ever; of `"streaming"` alone. Default 4. */
  sinks?: number;
  /** Recent tokens seen, the current one included. Default: the model's trained context or 1020, whichever is smaller. */
  window?: number;
  /** Tokens of a prompt that one pass takes. Changes speed and memory, not the result. Default: 64, on a GPU up to 256. */
  chunk?: number;
  /**
   * How keys and values are stored. Default `"f16"`; needs no `shader-f16`. `"q8_0"` and `"q4_0"`, ggml's blocks of 32, take
   * about half of that and a quarter, and want heads of a multiple of 32 dimensions.
   */
  kv?: "f16" | "f32" | "q8_0" | "q4_0";
  /** How products of one token take their inputs: as they are, or rounded to bytes, which changes the result a little. Default `"f32"`. */
  activations?: "f32" | "int8";
}

/** How far a load is. */
export interface Progress {
  /** `"verify"`: a kept copy is checked. `"load"`: bytes arrive, from the network or a kept copy, and go to the GPU. `"compile"`: shaders. */
  stage: "verify" | "load" | "compile";
  /** Where the bytes come from. */
  from: "network" | "cache" | "file";
  /** Bytes done. */
  loaded: number;
  /** Bytes in all; 0 where a server does not say. */
  total: number;
}

export interface LoadOptions extends CacheOptions {
  /**
   * A URL, a file somebody picked or dropped, or its bytes. Of a split model (`NAME-00001-of-00003.gguf`) the URL of one of
   * its files leads to the others beside it; picked files are given together, in any order.
   */
  model: string | URL | File | File[] | Blob | ArrayBuffer | Uint8Array;
  /** Called at most some thirty times a second, and at the end of each stage. */
  onProgress?: (progress: Progress) => void;
  /** What went wrong without stopping the load: the browser refused to keep the model, say. Default: `console.warn`. */
  onWarning?: (message: string) => void;
  /** Aborts the load. What was downloaded so far stays and is resumed by the next load. */
  signal?: AbortSignal;
  /**
   * How many streams there may be at once, forks among them: see `Engine.fork`. Each has a cache of its own, which is reserved
   * at once. Default 1, whose single stream is a little faster than one of several.
   */
  streams?: number;
  /** Keep a downloaded model in the browser's private file system, and ask the browser to let it stay. Default true. */
  cache?: boolean;
  /**
   * The file's sha256 in hexadecimal; of a split model, that of the file that is named. A copy that has another is refused, and a kept one fetched anew. A kept copy is
   * hashed once, and again only after it has changed.
   */
  sha256?: string;
  /**
   * Which of the kernels that compute the same is fastest is measured at the first load of a format on a device, for
   * less than half a second on a GPU, and kept in `localStorage`. `"off"`: never, take what suits the kind of device;
   * `"again"`: whatever is kept. Results differ by rounding alone. Default `"on"`.
   */
  tune?: "on" | "off" | "again";
  /**
   * Where the engine runs: `undefined` in a worker of its own; a `Worker` of yours whose script imports
   * `brooklet/worker`; `false` in the page itself, where a download is not kept.
   */
  worker?: Worker | false;
  /**
   * The folder in which the package's `worker.js` and `brooklet_bg.wasm` lie, the other files of the package beside
   * them. Only where they are not found by themselves: after a bundler that does not know `new URL(…, import.meta.url)`,
   * esbuild say.
   */
  assets?: string | URL;
}

/** How to connect to a server. */
export interface ConnectOptions {
  /** The key that the server wants (`--api-key`). It is sent in the first message, never in the address. */
  key?: string;
  /** Fails at once where the server has not so many streams free for this engine and its forks. Default 1. */
  streams?: number;
  /** How far the server is, where it still loads its model. */
  onProgress?: (progress: Progress) => void;
  onWarning?: (message: string) => void;
  signal?: AbortSignal;
}

/** How to choose tokens, and when to end. */
export interface StreamOptions {
  /** 0 is greedy. Default 0.8. */
  temperature?: number;
  /** 0 is off. Default 40. */
  topK?: number;
  /** 1 is off. Default 0.95. */
  topP?: number;
  /** 0 is off. Default 0.05. */
  minP?: number;
  /** 1 is off, the default. */
  repeatPenalty?: number;
  /** 0 is off, the default. */
  presencePenalty?: number;
  /** 0 is off, the default. */
  frequencyPenalty?: number;
  /** The same seed on the same device gives the same text. Default: a random one; see `stats.seed`. */
  seed?: number;
  /**
   * How far the GPU works ahead of what was read, which is made in vain when the stream is stopped: `"interactive"` by
   * about a tenth of a second, `"throughput"` by about half a second where that gives more tokens a second. Default
   * `"interactive"`. Changes speed, not the text.
   */
  pace?: "interactive" | "throughput";
  /** Default `Infinity`. */
  maxTokens?: number;
  /** Texts that end the stream. None of them, nor what follows, is given out. */
  stop?: string[];
  /** End where the model says so. Default false: such tokens are never chosen. */
  stopAtEos?: boolean;
  /**
   * A JSON schema, as an object or as text, which what is generated is valid by, whatever the model is: say in the prompt what
   * is wanted. The output ends where the schema lets it, and `maxTokens` cuts it short. What of JSON Schema is supported, and
   * in which layout JSON is written, is in `docs/grammar.md`; anything else is an error of code `"bad-option"` that names it
   * and where it stands. The first output that is held to something loads the engine of grammars, a wasm of its own.
   */
  schema?: object | boolean | string;
  /** A regular expression that matches the output from its first character to its last: Rust's `regex` syntax. */
  regex?: string;
  /** A context-free grammar that gives the output, in llguidance's variant of Lark's syntax, from its rule `start`. */
  grammar?: string;
  /** Ends the stream with an error of code `"aborted"`. */
  signal?: AbortSignal;
}

/** One token. Its text is empty while a character is not complete. */
export interface Piece {
  text: string;
  /** -1 for text that was held back for a stop text until the stream ended without it. */
  token: number;
  /** Its place in the stream; the first token of the first prompt has 0. */
  index: number;
}

export type StopReason = "length" | "stop" | "end of text" | "cache full" | "stopped" | "aborted" | "error";

/** Figures of one stream, brought up to date with every token. */
export interface StreamStats {
  promptTokens: number;
  generatedTokens: number;
  /** Prompt tokens per second. */
  prefillTps: number;
  /** Tokens per second after the first. */
  decodeTps: number;
  /** From the call to the first token, in milliseconds. */
  ttftMs: number;
  /** Tokens in the stream so far, prompts included. */
  position: number;
  /** Tokens that nothing can look back on any more. */
  evicted: number;
  seed: number;
  /** Bytes of the engine's wasm memory. */
  wasmBytes: number;
  stopReason?: StopReason;
}

/**
 * Text as it is made. Tokens are made only while somebody asks for the next: a loop that waits is a
 * pause, and one that is left (`break`) ends the work.
 */
export interface TextStream extends AsyncIterableIterator<Piece> {
  readonly stats: StreamStats;
  /** Ends the stream. The engine can then be fed, streamed from again, or reset. */
  stop(): Promise<void>;
}

/** A message of a conversation, in OpenAI's form. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
  /** What the model thought on the way to its answer, where it is one that does. */
  thoughts?: string;
}

/** What a conversation should be. What is left out is the default. */
export interface ConversationOptions {
  /**
   * What the model is told first. Its tokens are the sinks: they stay in the cache for ever, and all else flows. One that takes
   * more than half of the cache is an error of code `"bad-option"` that says both numbers.
   */
  system?: string;
  /** A chat template: Jinja, the name of one in the model's file, or `"chatml"`. Default: the file's own. */
  template?: string;
  /** Tokens seen beside the system prompt. Default: what fills 4096 with it, or the model's trained context if that is less. */
  window?: number;
  chunk?: CacheOptions["chunk"];
  kv?: CacheOptions["kv"];
  activations?: CacheOptions["activations"];
  /** Whether the model thinks first, where its template can be told. Default: as the template has it. */
  think?: boolean;
  /** What was said before, the user's and the model's messages in turn: the model is told before its next answer. */
  messages?: Message[];
}

/**
 * How to answer, and when to end. What is left out is as the model's file suggests (`info.sampling`), and the answer ends
 * where the model ends it.
 */
export interface AnswerOptions extends Omit<StreamOptions, "stopAtEos"> {
  /** As of {@link ConversationOptions}, for this answer. */
  think?: boolean;
}

/** A piece of an answer. Its text is never empty. */
export interface AnswerPiece {
  text: string;
  /** Whether it is a thought on the way to the answer. */
  thought: boolean;
}

/** A message, and how much of it the model can look back on. */
export interface SeenMessage {
  /** Counted from the first message of the conversation, without the system prompt. */
  message: number;
  role: "user" | "assistant";
  /** Where in the stream it begins. */
  first: number;
  tokens: number;
  /** Those of its tokens that are seen. */
  visible: number;
  seen: "whole" | "partly" | "gone";
}

/** What the model can look back on. */
export interface ConversationWindow {
  /** Tokens at the start that are never forgotten: the system prompt. */
  pinned: number;
  /** Tokens that are seen beside them, at most. */
  window: number;
  /** Tokens of the conversation so far. */
  tokens: number;
  /** Those of them that are not seen any more. */
  forgotten: number;
  /** Messages of which nothing is seen, from the first on. */
  gone: number;
  /** The others, the oldest first. */
  messages: SeenMessage[];
}

/** Figures of one answer, brought up to date with every piece. */
export interface AnswerStats {
  /** Tokens that were fed for it: those of its own turn, or more where the conversation was told anew. */
  fed: number;
  generatedTokens: number;
  /** Fed tokens per second. */
  prefillTps: number;
  /** Tokens per second after the first. */
  decodeTps: number;
  /** From the first `next()` to the first piece, in milliseconds. */
  ttftMs: number;
  /** Tokens of the conversation so far. */
  position: number;
  /** Those of them that are not seen any more. */
  forgotten: number;
  /** What the model could look back on with the last piece. */
  window?: ConversationWindow;
  /** Whether the conversation was told anew: another had the cache, or the ring had lost what came before the turn. */
  retold: boolean;
  /** Messages that did not fit when it was told anew. */
  leftOut: number;
  seed: number;
  /** Bytes of the engine's wasm memory. */
  wasmBytes: number;
  stopReason?: StopReason;
}

/** An answer as it is made. A loop that waits is a pause, and one that is left (`break`) ends the answer where it is. */
export interface Answer extends AsyncIterableIterator<AnswerPiece> {
  readonly stats: AnswerStats;
  /** Ends the answer where it is. While the message is still being read, it is taken back, and there was no turn. */
  stop(): Promise<void>;
}

/**
 * A conversation that never has to end. A turn costs its own tokens, however long the conversation is; what has left the window
 * is forgotten, but for the system prompt. Several conversations of one engine share its cache: one that has lost it to another,
 * or to a stream, is told anew when it speaks again.
 */
export interface Conversation {
  /** The system prompt; empty where there is none. */
  readonly system: string;
  /** What was said so far, without the system prompt: a copy. The answer under way is the last, with all that was made of it. */
  readonly messages: Message[];
  /** Says something. The work begins with the first `next()` of what comes back. */
  send(text: string, options?: AnswerOptions): Answer;
  /** Takes the last answer back and makes another. */
  regenerate(options?: AnswerOptions): Answer;
  /** Takes the last turn back and says this in its place. */
  edit(text: string, options?: AnswerOptions): Answer;
  /** What the model can look back on; as it was when the conversation last had the cache, where it has not. */
  window(): Promise<ConversationWindow>;
  /** The conversation in OpenAI's form, the system prompt first. `conversation({ messages })` takes the others up again. */
  export(): { template?: string; messages: Message[] };
}

/** What is asked of `engine.chat.completions.create`, in OpenAI's form. Fields that are not here are ignored. */
export interface CompletionRequest {
  /** A system prompt, if any, then messages of user and assistant in turn, the user's last. */
  messages: { role: string; content: string | { type: "text"; text: string }[] }[];
  stream?: boolean;
  stream_options?: { include_usage?: boolean };
  /** How many answers; not of a stream. Default 1. */
  n?: number;
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  repetition_penalty?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
  /** Of `"json_object"`, an answer is a JSON object; of `"json_schema"`, JSON that is valid by the schema, `strict` or not. */
  response_format?:
    | { type: "text" }
    | { type: "json_object"; schema?: object | string }
    | { type: "json_schema"; json_schema: { name?: string; strict?: boolean | null; schema: object | boolean } }
    | null;
  model?: string;
  signal?: AbortSignal;
}

export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Those of the prompt that were in the cache. */
  prompt_tokens_details: { cached_tokens: number };
  extra: { prefill_tokens_per_s: number; decode_tokens_per_s: number; time_to_first_token_s: number };
}

export interface Completion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: {
    index: number;
    message: { role: "assistant"; content: string; reasoning_content?: string };
    logprobs: null;
    finish_reason: "stop" | "length";
  }[];
  usage: CompletionUsage;
}

export interface CompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: { role?: "assistant"; content?: string; reasoning_content?: string };
    finish_reason: "stop" | "length" | null;
  }[];
  /** In the last chunk, where `stream_options.include_usage` asks for it. */
  usage?: CompletionUsage;
}

/**
 * Chat in OpenAI's shape. A request whose messages go on with those of the last one feeds its last message alone. Requests wait
 * for one another; a stream of chunks that is neither read to its end nor left keeps them waiting.
 */
export interface Completions {
  create(request: CompletionRequest & { stream: true }): Promise<AsyncIterableIterator<CompletionChunk>>;
  create(request: CompletionRequest & { stream?: false }): Promise<Completion>;
  create(request: CompletionRequest): Promise<Completion | AsyncIterableIterator<CompletionChunk>>;
  /** For the conversations of requests from now on: `window` or `template`, say. */
  with(options: Omit<ConversationOptions, "system" | "messages">): Completions;
  /** The text of the last answer so far. */
  readonly message: string;
  /** Forgets what was said. */
  reset(): void;
  /** Ends the answer under way where it is. */
  interrupt(): Promise<void> | undefined;
}

/** What is loaded, where, and how large. */
export interface Info {
  /** Where the engine is a server's: its streams in all, and what it calls the model. */
  server?: { streams: number; model: string };
  model: {
    name: string;
    architecture: string;
    /** The architecture, and what is special about its layers, in words. */
    kinds: string;
    /** Bytes of the file. */
    bytes: number;
    parameters: number;
    /** Most common tensor type, such as `"Q4_1"`. */
    quantization: string;
    nCtx: number;
    nVocab: number;
    nLayer: number;
    nEmbd: number;
  };
  /** Whether the model's file has a chat template, or a vocabulary that is made for one. */
  chat: { template: boolean };
  /** How the tokens of answers are chosen where nothing is asked for: as the file says (`general.sampling.*`), else as usual. */
  sampling: { temperature: number; topK: number; topP: number; minP: number; repeatPenalty: number };
  adapter: { name: string; backend: string; driver: string };
  /** Which kernels multiply, and where that choice comes from. */
  kernels: {
    sums: "shared" | "subgroup";
    rows: number;
    columns: boolean;
    origin: "class" | "kept" | "measured";
  };
  /** What the device offers beyond the WebGPU core, and what is used of it. */
  tier: { f16: boolean; subgroups: boolean; subgroupSize: [number, number]; timestamps: boolean; cpu: boolean };
  limits: { maxBinding: number; maxBuffer: number; workgroupMemory: number };
  cache: {
    policy: Policy;
    sinks: number;
    window: number;
    ring: number;
    chunk: number;
    kv: "f16" | "f32" | "q8_0" | "q4_0";
    activations: "f32" | "int8";
  };
  /** On the GPU, and of wasm memory. */
  bytes: { weights: number; kv: number; activations: number; gpu: number; wasm: number };
  /** Whether the model is kept in the browser. */
  kept: boolean;
}

/**
 * A model on the GPU with one cache over it, which a stream or a conversation has at a time. Forks go on beside it, each
 * with a cache of its own over the same weights.
 */
export class Engine {
  private constructor();
  static load(options: LoadOptions): Promise<Engine>;
  /**
   * An engine on a server, `brooklet serve`, with the same interface: `url` is the server's, with or without `/v1`. It takes a
   * stream of the server for itself, and each fork another; `unload`, or leaving the page, frees them. Model, template and cache
   * are the server's: options that ask for others fail with code `"bad-option"` and say what it has. When the connection is
   * lost, every call fails with code `"network"`; connect again.
   */
  static connect(url: string | URL, options?: ConnectOptions): Promise<Engine>;
  /**
   * A second engine over the same weights, with a cache of its own that begins as a copy of this one's stream; after a
   * conversation it is empty. Both go on at the same time, and a pass over the weights serves all who wait for a token.
   * What one is given does not depend on the others. There are as many as the model was loaded for (`streams`).
   */
  fork(options?: { signal?: AbortSignal }): Promise<Engine>;
  /** As of the last call that came back. */
  readonly info: Info;
  /** Goes on from `prompt`, put behind everything so far. An empty prompt goes on from there itself. */
  stream(prompt?: string, options?: StreamOptions): TextStream;
  /**
   * A conversation. Nothing is computed before it speaks. It takes the cache from a stream, which begins anew when it is
   * asked for again.
   */
  conversation(options?: ConversationOptions): Conversation;
  /** Chat in OpenAI's shape. */
  readonly chat: { readonly completions: Completions };
  /** Takes in text without answering. Resolves to its number of tokens. */
  feed(text: string, options?: { signal?: AbortSignal }): Promise<number>;
  /** The tokens of a text, as `feed` and `stream` would take them in now. */
  tokenize(text: string): Promise<{ token: number; text: string }[]>;
  /**
   * Switches a running stream between `"streaming"` and `"window"` on the spot: the sinks are no longer looked
   * at, or are again. Nothing but the last token is computed anew. Only for a cache that was made for `"streaming"`.
   */
  setPolicy(policy: "streaming" | "window"): Promise<void>;
  /** Starts anew with an empty cache; with options, one of another policy or size. */
  reset(options?: CacheOptions): Promise<void>;
  /**
   * Frees everything, GPU memory first. What is under way is not waited for: a stream ends as if it had been stopped,
   * other calls fail with code `"aborted"`. The engine cannot be used afterwards, and neither can its forks. Of a fork it
   * frees what is its own, for another fork to have.
   */
  unload(): Promise<void>;
}

/** A model kept in the browser. */
export interface KeptModel {
  url: string;
  name: string;
  /** Bytes kept. */
  bytes: number;
  /** Bytes of the whole file. */
  total: number;
  /** False after an interrupted download, which the next load resumes. */
  complete: boolean;
}

/** The models kept in this browser for this site. */
export function keptModels(): Promise<KeptModel[]>;
/** Forgets one. False when there was none, or while it is being downloaded. */
export function forgetModel(url: string | URL): Promise<boolean>;

export type ErrorCode =
  | "no-webgpu"
  | "no-adapter"
  | "device-lost"
  | "out-of-memory"
  | "bad-model"
  | "unsupported"
  | "network"
  | "aborted"
  | "bad-option"
  | "internal";

/** Every error of this package. The message is a sentence for the visitor: what was wrong and what to do. */
export class BrookletError extends Error {
  readonly code: ErrorCode;
}
/** This browser has no WebGPU, or not here; the message says which does, or which flag to set. */
export class NoWebGpuError extends BrookletError {}
/** WebGPU is there, but gives no adapter. */
export class NoAdapterError extends BrookletError {}
/** The GPU went away. Load a new engine. */
export class DeviceLostError extends BrookletError {}
/** The message says how much was needed and what smaller choice would fit. */
export class OutOfMemoryError extends BrookletError {}
/** The file is damaged, or not a GGUF file. */
export class BadModelError extends BrookletError {}
/** The file is sound, but asks for something this engine does not do. */
export class UnsupportedError extends BrookletError {}
/** The model could not be fetched. What came so far is kept and resumed by the next load. */
export class NetworkError extends BrookletError {}
/** A signal said so. */
export class AbortedError extends BrookletError {}
/** An option has a value that cannot work. */
export class BadOptionError extends BrookletError {}
/** A defect of this package, or a file of it that could not be loaded; the message says which. */
export class InternalError extends BrookletError {}
