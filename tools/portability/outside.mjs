// Node or Deno: `outside.mjs LIST ASSETS MODEL…` prints in JSON which kernels of the list it compiles, and which it runs.
import { readFileSync } from "node:fs";
import process from "node:process";
import "../../web/runtimes/webgpu.mjs";
import { WGSL } from "./controls.mjs";
import { engineRuns, pipelines } from "./pipelines.mjs";

const [list, assets, ...models] = process.argv.slice(2);
const made = await pipelines(JSON.parse(readFileSync(list, "utf8")), WGSL);
const { Engine } = await import("../../web/pkg/index.js");
const ran = await engineRuns({ Engine, assets, models });
console.log(JSON.stringify({ ...made, ran }));
process.exit(0);
