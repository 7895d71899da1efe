// What a compiler must refuse, and what it must take: one that cannot tell the two apart has checked nothing.
export const WGSL = {
  good: `@group(0) @binding(0) var<storage, read_write> y: array<u32>;
override WG: u32 = 1u;
@compute @workgroup_size(WG) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = id.x; }`,
  bad: `@group(0) @binding(0) var<storage, read_write> y: array<u32>;
override WG: u32 = 1u;
@compute @workgroup_size(WG) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = nothing; }`,
};

export const HLSL = {
  good: `RWByteAddressBuffer y : register(u0);
[numthreads(8, 1, 1)] void main(uint3 id : SV_DispatchThreadID) { y.Store(4 * id.x, id.x); }`,
  bad: `RWByteAddressBuffer y : register(u0);
[numthreads(8, 1, 1)] void main(uint3 id : SV_DispatchThreadID) { y.Store(4 * id.x, nothing); }`,
};

/** SPIR-V whose last instructions are gone: a function without an end. */
export const truncated = (spirv) => spirv.subarray(0, spirv.length - 8);
