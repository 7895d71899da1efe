// add_position — x[t, i] += w[n + t, i]; the tokens of one pass
//
//   binding  name    access   type   shape       unit
//   0        params  read     Params
//   1        frame   read     u32    [4]         n: position of the first token, tokens: their number
//   2        w       read     f32    [n_ctx, D]  a row for each position
//   3        x       write    f32    [T, D]      activations
//
//   grid:      [ceil(D/WG), T, 1] workgroups, one element a lane
//   requires:  any D; positions below n_ctx: what is beyond would be given the last row
//   uses:      nothing
//   twin:      src/reference/add_position.rs

struct Params {
    cols: u32,       // D
    positions: u32,  // n_ctx
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group.x * WG + lane;
    let token = group.y;
    if token < frame[1] && i < params.cols {
        let position = min(frame[0] + token, params.positions - 1u);
        x[token * params.cols + i] += w[position * params.cols + i];
    }
}
