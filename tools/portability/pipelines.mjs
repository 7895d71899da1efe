// In a page, or in a runtime with WebGPU: makes a pipeline of every kernel, as the engine does.

/** `kernels`: `{ key, code, overrides, subgroups }` each. What was refused, and what the device has no subgroups for. */
export async function pipelines(kernels, controls) {
  const adapter = await navigator.gpu.requestAdapter();
  const subgroups = adapter.features.has("subgroups");
  const device = await adapter.requestDevice({ requiredFeatures: subgroups ? ["subgroups"] : [] });
  const result = { subgroups, compiled: [], refused: {} };
  const refusal = async ({ code, overrides }) => {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code });
    const compute = { module, entryPoint: "main", constants: overrides };
    const pipeline = device.createComputePipelineAsync({ layout: "auto", compute });
    const failed = await pipeline.then(
      () => undefined,
      (error) => error.message || "refused",
    );
    const scoped = await device.popErrorScope();
    return failed ?? scoped?.message;
  };
  const good = await refusal({ code: controls.good, overrides: { WG: 4 } });
  if (good) throw new Error(`a kernel that is right was refused: ${good}`);
  if (!(await refusal({ code: controls.bad, overrides: { WG: 4 } })))
    throw new Error("a kernel that is wrong was taken");
  for (const kernel of kernels) {
    if (kernel.subgroups && !subgroups) continue;
    const said = await refusal(kernel);
    if (said) result.refused[kernel.key] = said.slice(0, 600);
    else result.compiled.push(kernel.key);
  }
  device.destroy();
  return result;
}

/** The kernels that engines dispatch here, with their overrides, for a prompt and a few tokens of each model. */
export async function engineRuns({ Engine, assets, models }) {
  const ran = new Set();
  const made = new WeakMap();
  const [device, pass] = [GPUDevice.prototype, GPUComputePassEncoder.prototype];
  const { createComputePipeline } = device;
  const { setPipeline } = pass;
  device.createComputePipeline = function (descriptor) {
    const pipeline = createComputePipeline.call(this, descriptor);
    const overrides = Object.entries(descriptor.compute.constants ?? {});
    made.set(pipeline, [descriptor.label, ...overrides.map(([name, value]) => `${name}=${value}`)].join(" "));
    return pipeline;
  };
  pass.setPipeline = function (pipeline) {
    ran.add(made.get(pipeline));
    return setPipeline.call(this, pipeline);
  };
  for (const model of models) {
    for (const kv of ["f16", "f32"]) {
      const engine = await Engine.load({ model, assets, kv, worker: false, cache: false, tune: "off" });
      for (const options of [{ temperature: 0 }, { temperature: 0.8 }, { temperature: 0.8, topK: 0 }]) {
        const stream = engine.stream("once upon a time ".repeat(10), { ...options, seed: 1, maxTokens: 3 });
        for await (const _ of stream);
      }
      await engine.unload();
    }
  }
  return [...ran];
}
