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

/** What is loaded, where, and how large. */
export interface Info {
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

/** A model on the GPU and one stream over it. Load another engine for a second stream. */
export class Engine {
  private constructor();
  static load(options: LoadOptions): Promise<Engine>;
  /** As of the last call that came back. */
  readonly info: Info;
  /** Goes on from `prompt`, put behind everything so far. An empty prompt goes on from there itself. */
  stream(prompt?: string, options?: StreamOptions): TextStream;
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
   * other calls fail with code `"aborted"`. The engine cannot be used afterwards.
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
