// half_check — y[i] = the half of bits i and that of bits i + 32768, which is as much below zero
//
//   binding  name    access   type   shape     unit
//   0        params  read     Params
//   1        y       write    f32    [len, 2]  a half
//
//   grid:      [ceil(len / WG), 1, 1] workgroups
//   requires:  len at most 32768
//   uses:      lib/unpack_half.wgsl
//   twin:      src/reference/half_check.rs
//
// Tells whether a device keeps the smallest halves, the subnormal ones: WGSL lets it take them for zeros.

struct Params {
    len: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec2<f32>>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.len {
        y[id.x] = unpack_half2(id.x | ((id.x | 0x8000u) << 16u));
    }
}
