// Models to choose from, beside the default: small ones that are made for conversations. Sizes are rounded.

const HUB = "https://huggingface.co";

export const CATALOGUE = [
  {
    name: "SmolLM2-360M-Instruct",
    size: "about 390 MB",
    good: "short answers in English, quick",
    licence: "Apache 2.0",
    from: "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF",
    file: "smollm2-360m-instruct-q8_0.gguf",
  },
  {
    name: "Qwen2.5-0.5B-Instruct",
    size: "about 490 MB",
    good: "many languages, short texts",
    licence: "Apache 2.0",
    from: "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
    file: "qwen2.5-0.5b-instruct-q4_k_m.gguf",
  },
  {
    name: "Qwen2.5-Coder-0.5B-Instruct",
    size: "about 490 MB",
    good: "code",
    licence: "Apache 2.0",
    from: "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
  },
  {
    name: "Qwen3-0.6B",
    size: "about 640 MB",
    good: "thinks before it answers; many languages",
    licence: "Apache 2.0",
    from: "Qwen/Qwen3-0.6B-GGUF",
    file: "Qwen3-0.6B-Q8_0.gguf",
  },
  {
    name: "Llama-3.2-1B-Instruct",
    size: "about 810 MB",
    good: "summaries and rewriting",
    licence: "Llama 3.2 Community Licence",
    from: "bartowski/Llama-3.2-1B-Instruct-GGUF",
    file: "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
  },
  {
    name: "Gemma-3-1B-it",
    size: "about 810 MB",
    good: "conversation in many languages",
    licence: "Gemma Terms of Use",
    from: "ggml-org/gemma-3-1b-it-GGUF",
    file: "gemma-3-1b-it-Q4_K_M.gguf",
  },
].map((model) => ({
  ...model,
  url: `${HUB}/${model.from}/resolve/main/${model.file}`,
  page: `${HUB}/${model.from}`,
}));
