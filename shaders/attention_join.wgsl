// attention_join — att[h] = sum_s e^(m_s - m) o_s / sum_s e^(m_s - m) l_s,  m = max m_s: one attention of several splits
//
//   binding  name    access   type  shape                unit
//   0        params  read     Params
//   1        frame   read     u32   [4]                  n: the token's position
//   2        parts   read     f32   [splits, H, HD + 2]  o: sums of p v; m: the highest score; l: the sum of p
//   3        out     write    f32   [1, H HD]            activations
//
//   grid:      [H, 1, 1] workgroups
//   requires:  splits that hold a stored slot have been written
//   twin:      src/reference/attention.rs

struct Params {
    heads: u32,     // H
    head_dim: u32,  // HD
    stored: u32,    // S + N
    split: u32,     // slots of a split
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let HD = params.head_dim;
    let splits = (min(frame[0] + 1u, params.stored) + params.split - 1u) / params.split;
    let stride = params.heads * (HD + 2u);
    let at = group.x * (HD + 2u);
    var highest = parts[at + HD];
    for (var s = 1u; s < splits; s++) {
        highest = max(highest, parts[s * stride + at + HD]);
    }
    for (var d = lane; d < HD; d += WG) {
        var sum = 0.0;
        var total = 0.0;
        for (var s = 0u; s < splits; s++) {
            let part = s * stride + at;
            let scale = exp(parts[part + HD] - highest);
            sum = fma(scale, parts[part + d], sum);
            total = fma(scale, parts[part + HD + 1u], total);
        }
        out[group.x * HD + d] = sum / total;
    }
}
