// What naga takes, a browser's own compiler may refuse.
import assert from "node:assert/strict";
import { test } from "node:test";
import { packagePages } from "./harness.js";

const here = packagePages();

test("every kernel passes the browser's own compiler, as a pipeline", async () => {
  const { count, complaints } = await here.page.evaluate(async () => {
    const { kernelSources } = await import("/brooklet/core.js");
    const adapter = await navigator.gpu.requestAdapter();
    const requiredFeatures = ["subgroups", "shader-f16"].filter((name) => adapter.features.has(name));
    const device = await adapter.requestDevice({ requiredFeatures });
    const complaints = [];
    const check = async (name, code) => {
      const module = device.createShaderModule({ code });
      for (const { message, lineNum } of (await module.getCompilationInfo()).messages)
        complaints.push(`${name}:${lineNum}: ${message}`);
      const pipeline = device.createComputePipelineAsync({ layout: "auto", compute: { module } });
      await pipeline.catch((error) => complaints.push(`${name}: ${error.message}`));
    };
    const sources = await kernelSources();
    const left = sources.values();
    const worker = async () => {
      for (const [name, code] of left) await check(name, code);
    };
    await Promise.all([worker(), worker(), worker(), worker()]);
    return { count: sources.length, complaints };
  });
  assert.deepEqual(complaints, []);
  assert.ok(count > 40, `only ${count} kernels`);
});

test("in Chromium no upload waits for a compiler, and nothing is compiled twice", async () => {
  const events = await here.inPage(async ({ Engine, TINY }) => {
    const { createComputePipeline, createComputePipelineAsync } = GPUDevice.prototype;
    const events = [];
    let queue;
    GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
      queue ??= this.queue.onSubmittedWorkDone().then(() => events.push("queue"));
      const compiled = createComputePipelineAsync.call(this, descriptor);
      return compiled.finally(() => events.push(`compiled ${descriptor.label}`));
    };
    GPUDevice.prototype.createComputePipeline = function (descriptor) {
      events.push(`made ${descriptor.label}`);
      return createComputePipeline.call(this, descriptor);
    };
    const engine = await Engine.load({ model: TINY, worker: false, tune: "off" });
    await engine.unload();
    return events;
  });
  const places = (event) => events.flatMap((found, at) => (found === event ? [at] : []));
  const names = new Set(events.filter((event) => event !== "queue").map((event) => event.split(" ")[1]));
  assert.ok(names.size > 8, events.join());
  for (const name of names) {
    const [compiled, made] = [places(`compiled ${name}`), places(`made ${name}`)];
    assert.equal(compiled.length, made.length, name);
    compiled.forEach((at, i) => assert.ok(at < made[i], `${name} is made of what is compiled already: ${events}`));
  }
  const last = events.findLastIndex((event) => event.startsWith("compiled"));
  assert.ok(places("queue")[0] < last, `the queue goes on while kernels are compiled: ${events}`);
});
