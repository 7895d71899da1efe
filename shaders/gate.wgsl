// gate — x[t, h, i] <- x[t, h, i] * sigmoid(z[t, h, i]); with NORMED x[t, h, i] <- norm_i(x[t, h]) * gain[i] * silu(z[t, h, i]),
//        norm_i(x) = x[i] / sqrt(mean_j(x[j]^2) + eps)
//
//   binding  name    access   type   shape         unit
//   0        params  read     Params
//   1        frame   read     u32    [4]           n: position of the first token, tokens: their number
//   2        z       read     f32    [T, stride]   gates, from column `first` on
//   3        gain    read     f32    [size]        with NORMED; else any
//   4        x       write    f32    [T, H, size]  activations
//
//   grid:      [H, T, 1] workgroups, one a head of a token
//   requires:  WG a power of two; any sizes
//   uses:      lib/reduce.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one subgroup (gate_subgroup)
//   twin:      src/reference/gate.rs

struct Params {
    heads: u32,   // H
    size: u32,    // of a head
    stride: u32,  // of a row of gates
    first: u32,   // the first gate's column
    eps: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read> gain: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

override WG: u32 = 64u;
/// Each head is normalised first, and its gate goes through SiLU.
override NORMED: bool = false;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.y >= frame[1] {
        return;
    }
    let at = (group.y * params.heads + group.x) * params.size;
    let gates = group.y * params.stride + params.first + group.x * params.size;
    var scale = 1.0;
    if NORMED {
        var sum = 0.0;
        for (var i = lane; i < params.size; i += WG) {
            sum += x[at + i] * x[at + i];
        }
        scale = 1.0 / sqrt(reduce_sum(lane, sum) / f32(params.size) + params.eps);
    }
    for (var i = lane; i < params.size; i += WG) {
        let gate = z[gates + i];
        var v = x[at + i] / (1.0 + exp(-gate));
        if NORMED {
            v *= scale * gain[i] * gate;
        }
        x[at + i] = v;
    }
}
