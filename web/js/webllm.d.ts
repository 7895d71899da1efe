/**
 * For code that was written for WebLLM: its names, over this engine. Change the import, and the rest stays:
 *
 * ```js
 * import { CreateMLCEngine } from "brooklet/webllm"; // was "@mlc-ai/web-llm"
 * ```
 *
 * A model is named as WebLLM names it, where a GGUF file of it is known; by the `model_id` of an own `appConfig`, whose `model` is
 * the address of a GGUF file; or by such an address itself. Tools, grammars, `logprobs` and `logit_bias` are errors that say so.
 */
import type { Completions } from "./index.js";

export interface InitProgressReport {
  /** 0 to 1, of the stage that the text names. */
  progress: number;
  /** In seconds. */
  timeElapsed: number;
  text: string;
}

export interface AppConfig {
  /** `model` is the address of a GGUF file. */
  model_list: { model: string; model_id: string }[];
}

export interface MLCEngineConfig {
  appConfig?: AppConfig;
  initProgressCallback?: (report: InitProgressReport) => void;
  logLevel?: string;
}

export interface ChatOptions {
  /** Tokens seen beside the system prompt; -1 as usual. What has left them is forgotten, and nothing ends. */
  context_window_size?: number;
  /** The same. */
  sliding_window_size?: number;
}

/** The models that are known by name. */
export const prebuiltAppConfig: AppConfig;

export interface MLCEngineInterface {
  chat: { completions: Pick<Completions, "create"> };
  setInitProgressCallback(callback: (report: InitProgressReport) => void): void;
  reload(model: string | URL, options?: ChatOptions): Promise<void>;
  /** The text of the last answer so far. */
  getMessage(): Promise<string>;
  /** Ends the answer under way where it is. */
  interruptGenerate(): Promise<void>;
  /** Forgets what was said. */
  resetChat(): Promise<void>;
  unload(): Promise<void>;
}

export class MLCEngine implements MLCEngineInterface {
  constructor(config?: MLCEngineConfig, options?: ChatOptions);
  chat: { completions: Pick<Completions, "create"> };
  setInitProgressCallback(callback: (report: InitProgressReport) => void): void;
  reload(model: string | URL, options?: ChatOptions): Promise<void>;
  getMessage(): Promise<string>;
  interruptGenerate(): Promise<void>;
  resetChat(): Promise<void>;
  unload(): Promise<void>;
}

export function CreateMLCEngine(
  model: string | URL,
  config?: MLCEngineConfig,
  options?: ChatOptions,
): Promise<MLCEngine>;
/** The worker that was made for WebLLM is ended: the engine has one of its own. */
export function CreateWebWorkerMLCEngine(
  worker: Worker | undefined,
  model: string | URL,
  config?: MLCEngineConfig,
  options?: ChatOptions,
): Promise<MLCEngine>;
