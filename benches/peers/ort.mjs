// ONNX Runtime on WebGPU, in a Python process that lives from round to round (ort.py).
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";

export class Ort {
  #child;
  #lines;

  constructor(name, { python, device, ...settings }) {
    Object.assign(this, { name, python, device, settings });
  }

  async #ask(message) {
    this.#child.stdin.write(`${JSON.stringify(message)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("the process ended");
    const { error, result } = JSON.parse(value);
    if (error) throw new Error(error);
    return result;
  }

  async start() {
    const program = path.join(import.meta.dirname, "ort.py");
    this.#child = spawn(this.python, [program], { stdio: ["pipe", "pipe", "ignore"] });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    await once(this.#child, "spawn");
    // It does not say which adapter it took: the one driver that there is.
    return { device: this.device, ...(await this.#ask({ start: this.settings })) };
  }

  round() {
    return this.#ask({ round: true });
  }

  stop() {
    this.#child?.kill();
  }
}
