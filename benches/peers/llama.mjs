// llama.cpp in a process of its own, which lives from round to round: this file is its program and what talks to it.
import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";

/** llama.cpp on one backend. */
export class Llama {
  #child;

  constructor(name, options) {
    Object.assign(this, { name, options });
  }

  #ask(message) {
    return new Promise((resolve, reject) => {
      const ended = (code, signal) => reject(new Error(`the process ended with ${signal ?? code}`));
      this.#child.once("exit", ended);
      this.#child.once("message", ({ error, result }) => {
        this.#child.off("exit", ended);
        if (error) reject(new Error(error));
        else resolve(result);
      });
      this.#child.send(message);
    });
  }

  async start() {
    this.#child = fork(import.meta.filename, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    return this.#ask({ start: this.options });
  }

  round() {
    return this.#ask({ round: true });
  }

  stop() {
    this.#child?.kill();
  }
}

const SENTENCE = "The brook runs past the mill, and past the mill the brook runs on. ";
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

let sizes, ids, sequence;

async function start({ gpu, flash, model: modelPath, modules, sizes: wanted }) {
  sizes = wanted;
  const entry = path.join(modules, "node_modules", "node-llama-cpp", "dist", "index.js");
  const { getLlama, LlamaLogLevel, getModuleVersion } = await import(pathToFileURL(entry));
  const llama = await getLlama({ gpu, build: "never", progressLogs: false, logLevel: LlamaLogLevel.error });
  // It takes another backend where it cannot have the one that was asked for.
  if (llama.gpu !== gpu) throw new Error(`no ${gpu} backend: it would run on ${llama.gpu || "the CPU"}`);
  const model = await llama.loadModel({ modelPath });
  const threads = availableParallelism();
  const context = await model.createContext({
    contextSize: sizes.context + sizes.tokens + 64,
    batchSize: sizes.prefill,
    threads,
    flashAttention: flash,
  });
  sequence = context.getSequence();
  const text = SENTENCE.repeat(sizes.context);
  ids = model.tokenize(text).slice(0, Math.max(sizes.context, sizes.prefill));
  // Pipelines are made when they are first used, and depend on how many tokens go together.
  await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, Math.min(160, sizes.prefill)));
  await decode(4);
  return {
    version: `${llama.llamaCppRelease.release}, node-llama-cpp ${await getModuleVersion()}`,
    device: gpu ? (await llama.getGpuDeviceNames()).join(", ") : `the CPU, ${threads} threads`,
  };
}

/** The milliseconds that each of so many greedy tokens took. */
async function decode(tokens) {
  const times = [];
  let before = performance.now();
  for await (const _ of sequence.evaluate([ids[0]], { temperature: 0 })) {
    const now = performance.now();
    times.push(now - before);
    before = now;
    if (times.length === tokens) break;
  }
  return times;
}

const rate = (times) => (1000 * times.length) / times.reduce((sum, ms) => sum + ms, 0);

async function round() {
  const { prefill, context, short, tokens } = sizes;
  await sequence.clearHistory();
  await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, short));
  const early = (await decode(tokens + 1)).slice(1);

  // A token after the prompt waits for the device, whatever the call for the prompt waits for; then less its own time.
  await sequence.clearHistory();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, prefill));
  const [first, ...others] = await decode(6).then((times) => [performance.now() - start, ...times.slice(1)]);
  const spent = first - others.reduce((sum, ms) => sum + ms, 0) - median(others);

  await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(sequence.nextTokenIndex, context));
  const late = (await decode(tokens + 1)).slice(1);
  return {
    prefill: (1000 * prefill) / spent,
    decode: rate(early),
    late: rate(late),
    hostBytes: process.resourceUsage().maxRSS * 1024,
  };
}

if (process.send) {
  process.on("message", async (message) => {
    try {
      process.send({ result: message.start ? await start(message.start) : await round() });
    } catch (error) {
      process.send({ error: String(error.message ?? error) });
    }
  });
}
