// For code that was written for WebLLM: its names, over this engine. `import … from "brooklet/webllm"` in the place of
// "@mlc-ai/web-llm". Types and documentation: webllm.d.ts.
import { BadOptionError, Engine } from "./index.js";

const MODELS = "https://huggingface.co";

/** GGUF files of models that WebLLM has by these names, without how it has quantised them. */
const KNOWN = {
  "SmolLM2-135M-Instruct": "bartowski/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q4_K_M.gguf",
  "SmolLM2-360M-Instruct": "bartowski/SmolLM2-360M-Instruct-GGUF/resolve/main/SmolLM2-360M-Instruct-Q4_K_M.gguf",
  "SmolLM2-1.7B-Instruct": "bartowski/SmolLM2-1.7B-Instruct-GGUF/resolve/main/SmolLM2-1.7B-Instruct-Q4_K_M.gguf",
  "Qwen2.5-0.5B-Instruct": "Qwen/Qwen2.5-0.5B-Instruct-GGUF/resolve/main/qwen2.5-0.5b-instruct-q4_k_m.gguf",
  "Qwen2.5-1.5B-Instruct": "Qwen/Qwen2.5-1.5B-Instruct-GGUF/resolve/main/qwen2.5-1.5b-instruct-q4_k_m.gguf",
  "Llama-3.2-1B-Instruct": "bartowski/Llama-3.2-1B-Instruct-GGUF/resolve/main/Llama-3.2-1B-Instruct-Q4_K_M.gguf",
  "Llama-3.2-3B-Instruct": "bartowski/Llama-3.2-3B-Instruct-GGUF/resolve/main/Llama-3.2-3B-Instruct-Q4_K_M.gguf",
  "Llama-3.1-8B-Instruct":
    "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF/resolve/main/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
};

export const prebuiltAppConfig = {
  model_list: Object.entries(KNOWN).map(([model_id, path]) => ({ model_id, model: `${MODELS}/${path}` })),
};

/** Where a model lies: an address itself, one of the application's own list, or one that is known. */
function addressOf(id, { appConfig = prebuiltAppConfig }) {
  if (typeof id !== "string" && !(id instanceof URL))
    throw new BadOptionError("model: the name or the address of a model is wanted");
  const name = String(id);
  if (/^https?:|^blob:|\.gguf$/i.test(name)) return name;
  const plain = name.replace(/-q\d+f\d+(_\d+)?-MLC.*$/, "");
  const list = [...(appConfig.model_list ?? []), ...prebuiltAppConfig.model_list];
  // A list that was made for WebLLM names folders of its own format.
  const isGguf = ({ model }) => !/-MLC\/?$/.test(String(model));
  const found = list.find((entry) => (entry.model_id === name || entry.model_id === plain) && isGguf(entry));
  if (!found) {
    const known = prebuiltAppConfig.model_list.map(({ model_id }) => model_id).join(", ");
    throw new BadOptionError(`model: "${name}" is not known; give the address of a GGUF file, or one of ${known}`);
  }
  return found.model;
}

const windowOf = ({ sliding_window_size: sliding = -1, context_window_size: whole = -1 }) =>
  sliding > 0 ? { window: sliding } : whole > 0 ? { window: whole } : {};

const STAGES = { verify: "Checking the kept model", load: "Fetching the model", compile: "Compiling the shaders" };

/** Progress as WebLLM tells it. */
function report(tell, start, { stage, from, loaded, total }) {
  const progress = total > 0 ? loaded / total : 0;
  const where = stage === "load" && from === "cache" ? "Loading the model from this browser" : STAGES[stage];
  tell?.({
    progress,
    timeElapsed: (performance.now() - start) / 1000,
    text: `${where}: ${Math.round(100 * progress)} %`,
  });
}

export class MLCEngine {
  #config;
  #engine;

  constructor(config = {}, options) {
    this.#config = { ...config, options };
    this.chat = { completions: { create: async (request) => this.#completions().create(request) } };
  }

  #completions() {
    if (!this.#engine) throw new BadOptionError("no model is loaded: call reload first");
    return this.#engine.chat.completions;
  }

  setInitProgressCallback(callback) {
    this.#config.initProgressCallback = callback;
  }

  async reload(id, options = this.#config.options ?? {}) {
    const model = addressOf(id, this.#config);
    await this.unload();
    const start = performance.now();
    const onProgress = (progress) => report(this.#config.initProgressCallback, start, progress);
    this.#engine = await Engine.load({ model, onProgress });
    this.#engine.chat.completions.with(windowOf(options));
  }

  async getMessage() {
    return this.#completions().message;
  }

  async interruptGenerate() {
    await this.#completions().interrupt();
  }

  async resetChat() {
    this.#completions().reset();
  }

  async unload() {
    const engine = this.#engine;
    this.#engine = undefined;
    await engine?.unload();
  }
}

export async function CreateMLCEngine(id, config, options) {
  const engine = new MLCEngine(config, options);
  await engine.reload(id);
  return engine;
}

/** The engine has a worker of its own: the one that was made for WebLLM is not needed. */
export function CreateWebWorkerMLCEngine(worker, id, config, options) {
  worker?.terminate();
  return CreateMLCEngine(id, config, options);
}
