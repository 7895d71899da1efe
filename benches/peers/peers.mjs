// Measures brooklet beside llama.cpp on one driver, in turns: A B C A B C …, so that what else the machine does falls on all.
//
//   node peers.mjs --brooklet BINARY --model FILE.gguf --modules FOLDER [--onnx FILE.onnx --python PYTHON]
//                  [--flash] [--rounds 5] [--patience 120] [--only 'NAME;NAME'] [--out FILE.json]
//
// FOLDER holds node_modules with node-llama-cpp as package-lock.json pins it; PYTHON has what requirements.txt pins, and
// web/peers/make_model.py makes the ONNX file. `./build.sh bench --peers` sees to all of it.
// Where the driver is a software one, its users set GGML_VK_DISABLE_F16=1 and GGML_VK_VISIBLE_DEVICES=0 (build.sh does).
import { execFile } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { arch, availableParallelism, cpus, platform, release } from "node:os";
import path from "node:path";
import { parseArgs, promisify } from "node:util";
import { calm } from "../../web/peers/host.mjs";
import { Llama } from "./llama.mjs";
import { Ort } from "./ort.mjs";

const PREFILL = 512;
const CONTEXT = 1000;
const SHORT = 16;
const TOKENS = 64;

const { values: flags } = parseArgs({
  options: {
    brooklet: { type: "string" },
    model: { type: "string" },
    modules: { type: "string" },
    onnx: { type: "string" },
    python: { type: "string" },
    // llama.cpp's flash attention on Vulkan too. On lavapipe it is eight times slower after 1,000 tokens.
    flash: { type: "boolean", default: false },
    rounds: { type: "string", default: "5" },
    // Seconds that a round waits at most for the machine to be calm. What others did when it began is noted.
    patience: { type: "string", default: "120" },
    only: { type: "string" },
    out: { type: "string" },
  },
});

const say = (text) => process.stderr.write(`peers: ${text}\n`);

/** brooklet, a process for each round. */
class Brooklet {
  name = "brooklet";

  async #bench(sizes) {
    const options = Object.entries(sizes).flatMap(([option, value]) => [option, String(value)]);
    const all = ["bench", "-m", flags.model, "--runs", "1", "--json", ...options];
    const { stdout } = await promisify(execFile)(flags.brooklet, all);
    return JSON.parse(stdout);
  }

  async start() {
    const { engine, adapter, driver } = await this.#bench({ "-n": 2, "--prefill": 64, "--context": 64 });
    return { version: engine, device: `${adapter}, ${driver}` };
  }

  async round() {
    const figures = await this.#bench({ "-n": TOKENS, "--prefill": PREFILL, "--context": CONTEXT });
    return {
      prefill: figures.prefill_tps.median,
      decode: figures.decode_tps.median,
      late: figures.decode_late_tps.median,
      loadMs: figures.load_ms.median,
      hostBytes: figures.host_bytes.peak,
    };
  }

  stop() {}
}

const sizes = { prefill: PREFILL, context: CONTEXT, short: SHORT, tokens: TOKENS };
const llama = (name, gpu, flash) => new Llama(name, { gpu, flash, model: flags.model, modules: flags.modules, sizes });
const engines = [
  new Brooklet(),
  llama("llama.cpp, Vulkan", "vulkan", flags.flash),
  llama("llama.cpp, its CPU", false, true),
];
if (flags.onnx) {
  const options = { python: flags.python, model: flags.onnx, device: "WebGPU on the same driver" };
  // It is slow where the others are measured; a quarter of the tokens will do.
  engines.splice(2, 0, new Ort("ONNX Runtime, WebGPU", { ...options, ...sizes, tokens: TOKENS / 4 }));
}
const chosen = flags.only?.split(";");
const measured = engines.filter(({ name }) => !chosen || chosen.includes(name));

/** Of `values`: the middle one, the least and the most. */
function spread(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return { median: (middle[0] + middle[1]) / 2, least: sorted[0], most: sorted.at(-1) };
}

const KINDS = { prefill: `prefill of ${PREFILL}`, decode: `decode after ${SHORT}`, late: `decode after ${CONTEXT}` };

function report(states, rounds) {
  const ours = states.find(({ name }) => name === "brooklet");
  const figures = states.map(({ name, about, error, samples }) => {
    const of = (kind) => samples.map((sample) => sample[kind]);
    const entry = { name, ...about, error, samples };
    for (const kind of samples.length ? Object.keys(KINDS) : []) {
      entry[kind] = spread(of(kind));
      // Round by round: what slowed the machine slowed both.
      if (ours && name !== "brooklet") {
        const ratios = of(kind).map((value, i) => ours.samples[i]?.[kind] / value);
        entry[kind].oursIsTimes = spread(ratios.filter(Number.isFinite));
      }
    }
    return entry;
  });
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: `${availableParallelism()} cores of ${cpus()[0]?.model.trim()}, ${platform()} ${release()} ${arch()}`,
    model: path.basename(flags.model),
    tokensPerSecond: KINDS,
    rounds,
    engines: figures,
  };
}

function table({ machine, model, rounds, engines }) {
  const number = ({ median, least, most }, digits) =>
    [median, least, most].map((n) => n.toFixed(digits).padStart(8)).join("");
  const lines = [`${model} on ${machine}; ${rounds} rounds; tokens/s`, ""];
  for (const [kind, what] of Object.entries(KINDS)) {
    lines.push(`${what.padEnd(22)}  median   least    most    brooklet is times`);
    for (const engine of engines.filter((engine) => engine[kind])) {
      const ratio = engine[kind].oursIsTimes ? number(engine[kind].oursIsTimes, 2) : "";
      lines.push(engine.name.padEnd(22) + number(engine[kind], 2) + ratio);
    }
    lines.push("");
  }
  for (const { name, version, device, error } of engines) {
    lines.push(error ? `${name}: ${error}` : `${name}: ${version} on ${device}`);
  }
  return lines.join("\n") + "\n";
}

const states = measured.map((engine) => ({ engine, name: engine.name, samples: [] }));
for (const state of states) {
  say(`${state.name}: starting`);
  try {
    state.about = await state.engine.start();
  } catch (error) {
    state.error = String(error.message ?? error);
    say(`${state.name}: left out: ${state.error}`);
  }
}
const rounds = Number(flags.rounds);
for (let round = 1; round <= rounds; round++) {
  for (const state of states.filter(({ error }) => !error)) {
    try {
      const otherCores = existsSync("/proc/stat") ? await calm(Number(flags.patience) * 1000) : undefined;
      say(`round ${round} of ${rounds}: ${state.name}`);
      state.samples.push({ ...(await state.engine.round()), otherCores });
    } catch (error) {
      state.error = String(error.message ?? error);
      say(`${state.name}: ends here: ${state.error}`);
    }
  }
  // Written after each round, so that a run that is cut short leaves what it had.
  if (flags.out) writeFileSync(flags.out, JSON.stringify(report(states, round), null, 2) + "\n");
}
for (const { engine } of states) engine.stop();
process.stdout.write(table(report(states, rounds)));
