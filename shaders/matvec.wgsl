// matvec — y[0, r] = sum_k w[r, k] x[0, k] (+ bias[r]), then the epilogue; one token
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        x       read     vec4<f32>  [1, K/4]         activations
//   2        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   3        scales  read     u32        [rows, by type]  their scales
//   4        bias    read     f32        [M] or [1]       added where has_bias
//   5        y       write    f32        [1, M]           activations ([1, M/2] with a gate)
//
//   grid:      [ceil(rows/(ROWS sets)), beyond 65535 in y, 1] workgroups, ROWS rows for each set of lanes
//   requires:  K a multiple of 32; with a gate an even number of rows
//   uses:      lib/four_rows.wgsl (F32 without subgroups: lib/four_rows_floats.wgsl), or lib/many_rows.wgsl in
//              matvec_<type>_many; lib/plain.wgsl, lib/nibbles.wgsl, or lib/int8.wgsl in matvec_<type>_int8, where
//              activations are rounded to bytes; lib/block.wgsl, lib/inputs.wgsl, lib/epilogue.wgsl, one
//              lib/<type>.wgsl and what that uses; lib/reduce4.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one
//              subgroup (matvec_<type>_subgroup, _many)
//   twin:      src/reference/matmul.rs; with lib/int8.wgsl after src/reference/rounded.rs
//
// One barrier, or none.

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // K/32
    y_stride: u32,
    has_bias: u32,
    grid_x: u32,
    lanes: u32,     // of a set
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;

fn done(row: u32, lane: u32, sums: vec4<f32>) {
    if lane == 0u {
        finish(0u, row, sums);
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = ROWS * sets() * (group.x + group.y * params.grid_x);
    if row >= params.rows {
        return;
    }
    multiply(row, lane);
}
