// get_rows — x[t, :] = scale w[tokens[t], :], for the tokens of one pass whose row is in this part
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        frame   read     u32        [4]              n: position of the first token, tokens
//   2        tokens  read     u32        [T], or [T, n]   ids; of each row the first
//   3        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   4        scales  read     u32        [rows, by type]  their scales
//   5        x       write    vec4<f32>  [T, D/4]         activations
//
//   grid:      [T, 1, 1] workgroups, one a token
//   requires:  D a multiple of 32
//   uses:      lib/block.wgsl, one lib/<type>.wgsl
//   twin:      src/reference/get_rows.rs

struct Params {
    rows: u32,   // of this part
    row0: u32,   // where the part starts in the whole matrix
    units: u32,  // D/32
    scale: f32,
    stride: u32, // from one id to the next
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let token = group.x;
    if token >= frame[1] {
        return;
    }
    let id = tokens[params.stride * token];
    // An id below row0 wraps round to a large number.
    if id - params.row0 >= params.rows {
        return;
    }
    for (var unit = lane; unit < params.units; unit += WG) {
        let row = weights((id - params.row0) * params.units + unit);
        let at = 8u * (token * params.units + unit);
        x[at] = params.scale * row.a;
        x[at + 1u] = params.scale * row.b;
        x[at + 2u] = params.scale * row.c;
        x[at + 3u] = params.scale * row.d;
        x[at + 4u] = params.scale * row.e;
        x[at + 5u] = params.scale * row.f;
        x[at + 6u] = params.scale * row.g;
        x[at + 7u] = params.scale * row.h;
    }
}
