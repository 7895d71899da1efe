// What naga takes, a browser's own compiler may refuse.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL, FIREFOX, needs, packagePages } from "./harness.js";

const here = packagePages();

/** Loops and formats are written apart: a driver that takes every loop with two formats and every format in one takes the
 * others too, or so it has been. `./build.sh test --all` sees whether it is. */
const FORMAT = "_(f32|f16|bf16|i?q[0-9]_[01knxls]+|tq2_0|mxfp4)(?=_|$)";
const LOOPS = ["matvec", "matvec_int8"];
const FORMATS = ["q4_1", "q6_k"];

test("every kernel passes the browser's own compiler, and as a pipeline", async () => {
  const { names, piped, complaints } = await here.page.evaluate(
    async ({ ALL, FIREFOX, FORMAT, LOOPS, FORMATS }) => {
      const { kernelSources } = await import("/brooklet/core.js");
      const adapter = await navigator.gpu.requestAdapter();
      const requiredFeatures = ["subgroups", "shader-f16"].filter((name) => adapter.features.has(name));
      const device = await adapter.requestDevice({ requiredFeatures });
      const [complaints, piped] = [[], []];
      const whole = (name) => {
        const format = name.match(FORMAT)?.[1];
        return ALL || !format || FORMATS.includes(format) || LOOPS.includes(name.replace(new RegExp(FORMAT), ""));
      };
      const check = async (name, code) => {
        const module = device.createShaderModule({ code });
        for (const { message, lineNum } of (await module.getCompilationInfo()).messages)
          complaints.push(`${name}:${lineNum}: ${message}`);
        if (!whole(name)) return;
        piped.push(name);
        const pipeline = device.createComputePipelineAsync({ layout: "auto", compute: { module } });
        await pipeline.catch((error) => complaints.push(`${name}: ${error.message}`));
      };
      // Firefox offers no subgroups, and its compiler does not know the directive.
      const known = ([, code]) => !FIREFOX || !code.startsWith("enable subgroups;");
      const sources = (await kernelSources()).filter(known);
      const left = sources.values();
      const worker = async () => {
        for (const [name, code] of left) await check(name, code);
      };
      await Promise.all([worker(), worker(), worker(), worker()]); // all at once take longer
      return { names: sources.map(([name]) => name), piped, complaints };
    },
    { ALL, FIREFOX, FORMAT, LOOPS, FORMATS },
  );
  assert.deepEqual(complaints, []);
  assert.ok(names.length > 40, `only ${names.length} kernels`);
  // nothing is left out that is not in one of the others
  const parts = (list) => {
    const formats = list.map((name) => name.match(FORMAT)?.[1]);
    const loops = list.map((name) => name.replace(new RegExp(FORMAT), ""));
    return [...new Set([...formats, ...loops])].sort();
  };
  assert.deepEqual(parts(piped), parts(names));
  if (ALL) assert.deepEqual(piped.sort(), names.sort());
});

test(
  "in Chromium no upload waits for a compiler, and nothing is compiled twice",
  { skip: needs("pipelines ahead") },
  async () => {
    const events = await here.inPage(async ({ Engine, TINY }) => {
      const device = GPUDevice.prototype;
      const events = [];
      // What an object was made of, since the browser finds a pipeline by that.
      const content = new Map();
      const noted = (method, of) => {
        const make = device[method];
        device[method] = function (descriptor) {
          const made = make.call(this, descriptor);
          content.set(made, of(descriptor));
          return made;
        };
      };
      noted("createShaderModule", ({ code }) => code);
      noted("createBindGroupLayout", ({ entries }) =>
        entries.map(({ binding, visibility, buffer }) => [
          binding,
          visibility,
          buffer.type,
          buffer.minBindingSize ?? 0,
        ]),
      );
      noted("createPipelineLayout", ({ bindGroupLayouts }) => bindGroupLayouts.map((layout) => content.get(layout)));
      const what = ({ label, layout, compute: { module, entryPoint, constants } }) =>
        JSON.stringify([label, content.get(layout), entryPoint, Object.entries(constants).sort(), content.get(module)]);

      const { createComputePipeline, createComputePipelineAsync } = device;
      let queue;
      device.createComputePipelineAsync = function (descriptor) {
        queue ??= this.queue.onSubmittedWorkDone().then(() => events.push(["queue"]));
        const compiled = createComputePipelineAsync.call(this, descriptor);
        return compiled.finally(() => events.push(["compiled", what(descriptor)]));
      };
      device.createComputePipeline = function (descriptor) {
        events.push(["made", what(descriptor)]);
        return createComputePipeline.call(this, descriptor);
      };
      const engine = await Engine.load({ model: TINY, worker: false, tune: "off" });
      await engine.unload();
      return events;
    });
    const places = (event, what) =>
      events.flatMap((found, at) => (found[0] === event && found[1] === what ? [at] : []));
    const pipelines = new Set(events.filter(([event]) => event !== "queue").map(([, what]) => what));
    assert.ok(pipelines.size > 8, `only ${pipelines.size} pipelines`);
    for (const what of pipelines) {
      const [compiled, made] = [places("compiled", what), places("made", what)];
      assert.equal(compiled.length, made.length, `asked for in both ways alike: ${what}`);
      compiled.forEach((at, i) => assert.ok(at < made[i], `made of what is compiled already: ${what}`));
    }
    const last = events.findLastIndex(([event]) => event === "compiled");
    assert.ok(places("queue")[0] < last, "the queue goes on while kernels are compiled");
  },
);
