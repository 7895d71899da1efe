// WebGPU where a browser's would be, under Node; Deno has it. And what the engine looks for, to know that there is one.
if (!globalThis.Deno) {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]), userAgent: "Node.js" } });
}
globalThis.WorkerGlobalScope ??= class WorkerGlobalScope {};
