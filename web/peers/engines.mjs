// The engines to measure: an entry is { name, engine, version, backend, options,
// setup }, and another engine is one more entry.
import { readFileSync } from "node:fs";
import path from "node:path";
import { GGUF, PACKAGE } from "./browser.mjs";

// A setup function runs in the page (so it sees nothing of this file) with its
// entry's `options`, loads library and model, and returns { info, generate(prompt, maxTokens, onPiece) }, where
// generate calls onPiece once a token and resolves to { text, tokens, ids }.

async function setupWllama({ model, load }) {
  const base = "/node_modules/@wllama/wllama/esm/";
  const { Wllama } = await import(base + "index.min.js");
  const devices = new Set();
  const log = (...parts) => {
    const buffer = /(\S+) model buffer size/.exec(parts.join(" "));
    if (buffer) devices.add(buffer[1]);
  };
  const wllama = new Wllama(
    { default: new URL(base + "wasm/wllama.wasm", location.href).href },
    { logger: { debug: log, log, warn: log, error: console.error } },
  );
  await wllama.loadModelFromUrl(new URL(model, location.href).href, load);
  // It says nothing when it takes the CPU instead.
  if (load.n_gpu_layers !== 0 && [...devices].every((name) => name.startsWith("CPU"))) {
    throw new Error(`not on the GPU: the weights are in ${[...devices]}`);
  }
  return {
    info: { threads: wllama.getNumThreads(), llama: Wllama.getLibllamaVersion(), devices: [...devices] },
    async generate(prompt, maxTokens, onPiece) {
      let text = "";
      let timings;
      const stream = await wllama.createCompletion({
        prompt,
        max_tokens: maxTokens,
        temperature: 0,
        cache_prompt: false,
        stream: true,
      });
      for await (const chunk of stream) {
        timings = chunk.timings ?? timings;
        const piece = chunk.choices[0]?.text;
        if (!piece) continue;
        onPiece();
        text += piece;
      }
      return { text, tokens: timings?.predicted_n, own: timings };
    },
  };
}

async function setupTransformers({ threads, ...load }) {
  const tf = await import("/node_modules/@huggingface/transformers/dist/transformers.min.js");
  const { env } = tf;
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/models/";
  const runtime = "/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify";
  // The build it takes from a CDN by default.
  const file = (end) => new URL(runtime + end, location.href).href;
  env.backends.onnx.wasm.wasmPaths = { mjs: file(".mjs"), wasm: file(".wasm") };
  if (threads) env.backends.onnx.wasm.numThreads = threads;
  const tokenizer = await tf.AutoTokenizer.from_pretrained("smollm2");
  const model = await tf.AutoModelForCausalLM.from_pretrained("smollm2", load);

  class Clock extends tf.BaseStreamer {
    constructor(onPiece) {
      super();
      this.onPiece = onPiece;
      this.isPrompt = true;
    }
    put() {
      if (!this.isPrompt) this.onPiece();
      this.isPrompt = false;
    }
    end() {}
  }
  return {
    info: { threads: env.backends.onnx.wasm.numThreads, runtime: env.backends.onnx.versions },
    async generate(prompt, maxTokens, onPiece) {
      const inputs = tokenizer(prompt);
      const streamer = new Clock(onPiece);
      const settings = { max_new_tokens: maxTokens, do_sample: false, streamer };
      const all = Array.from((await model.generate({ ...inputs, ...settings })).data, Number);
      const ids = all.slice(inputs.input_ids.dims.at(-1));
      return { text: tokenizer.decode(ids), ids, tokens: ids.length };
    },
  };
}

async function setupBrooklet({ module, model }) {
  const { Engine } = await import(module);
  const engine = await Engine.load({ model });
  return {
    info: { tier: engine.info.tier, gpuBytes: engine.info.bytes.gpu, wasmBytes: engine.info.bytes.wasm },
    async generate(prompt, maxTokens, onPiece) {
      await engine.reset();
      let text = "";
      const ids = [];
      for await (const piece of engine.stream(prompt, { temperature: 0, maxTokens })) {
        onPiece();
        text += piece.text;
        ids.push(piece.token);
      }
      return { text, ids, tokens: ids.length };
    },
  };
}

const versionOf = (name) =>
  JSON.parse(readFileSync(path.join(import.meta.dirname, "node_modules", name, "package.json"))).version;

function wllama(name, backend, load) {
  const options = { model: `/gguf/${GGUF}`, load };
  const version = versionOf("@wllama/wllama");
  return { name, engine: "wllama", version, backend, options, setup: setupWllama };
}

function transformers(name, backend, options) {
  const version = versionOf("@huggingface/transformers");
  return { name, engine: "transformers.js", version, backend, options, setup: setupTransformers };
}

// Its own file: see make_model.py.
const WASM_Q4 = { device: "wasm", dtype: "q4", model_file_name: "plain" };
const WASM_Q8 = { device: "wasm", dtype: "q8" };

export const engines = [
  {
    name: "brooklet",
    engine: "brooklet",
    version: JSON.parse(readFileSync(path.join(PACKAGE, "package.json"))).version,
    backend: "webgpu",
    options: { module: "/brooklet/index.js", model: `/gguf/${GGUF}` },
    setup: setupBrooklet,
  },
  wllama("wllama-1", "wasm, 1 thread", { n_threads: 1, n_gpu_layers: 0 }),
  wllama("wllama-2", "wasm, 2 threads", { n_threads: 2, n_gpu_layers: 0 }),
  wllama("wllama-webgpu", "webgpu", { n_threads: 1 }),
  transformers("tjs-webgpu-q4", "webgpu, q4", { device: "webgpu", dtype: "q4" }),
  transformers("tjs-wasm-q4-1", "wasm q4, 1 thread", { ...WASM_Q4, threads: 1 }),
  transformers("tjs-wasm-q4-2", "wasm q4, 2 threads", { ...WASM_Q4, threads: 2 }),
  transformers("tjs-wasm-q8-1", "wasm q8, 1 thread", { ...WASM_Q8, threads: 1 }),
  transformers("tjs-wasm-q8-2", "wasm q8, 2 threads", { ...WASM_Q8, threads: 2 }),
];
