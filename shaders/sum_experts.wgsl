// sum_experts — x[t, i] += sum_s share(t, s) y[t, s, i]: what the experts of a token give, in the order of its choices
//
//   binding  name    access   type       shape      unit
//   0        params  read     Params
//   1        frame   read     u32        [4]        n: position of the first token, tokens: their number
//   2        y       read     f32        [T, K, D]  products of each token with the matrices of its experts
//   3        chosen  read     vec2<u32>  [T, K]     experts of each token, and the bits of their shares
//   4        x       write    f32        [T, D]     activations
//
//   grid:      [ceil(D/WG), T, 1] workgroups, one element a lane
//   requires:  any D
//   uses:      nothing
//   twin:      src/reference/sum_experts.rs

struct Params {
    cols: u32,  // D
    used: u32,  // K
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group.x * WG + lane;
    let token = group.y;
    if token >= frame[1] || i >= params.cols {
        return;
    }
    var sum = 0.0;
    for (var slot = 0u; slot < params.used; slot++) {
        let choice = token * params.used + slot;
        sum += bitcast<f32>(chosen[choice].y) * y[choice * params.cols + i];
    }
    x[token * params.cols + i] += sum;
}
