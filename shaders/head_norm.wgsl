// head_norm — x[i] <- (x[i] - m) * gain[i] / sqrt(mean_i((x[i] - m)^2) + eps) for each group x of queries, keys and values
//             in qkv[t]; m = 0, or mean_i(x[i]) with CENTRED; groups of values have no gain
//
//   binding  name    access   type   shape             unit
//   0        params  read     Params
//   1        frame   read     u32    [4]               n: position of the first token, tokens: their number
//   2        gain    read     f32    [queries', keys'] a row for all groups of each, or with own a row for each group
//   3        qkv     write    f32    [T, stride]       activations: groups of queries, of keys, of values, and the rest
//
//   grid:      [q_norms + k_norms + v_norms, T, 1] workgroups, one a group and token
//   requires:  WG a power of two; any sizes
//   uses:      lib/reduce.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one subgroup (head_norm_subgroup)
//   twin:      src/reference/head_norm.rs
//
// A group is a head, or all heads together where a model norms whole rows.

struct Params {
    stride: u32,   // of qkv
    q_norms: u32,  // groups of queries
    q_size: u32,   // elements of each
    k_norms: u32,  // groups of keys
    k_size: u32,   // elements of each, and of each group of values
    v_norms: u32,  // groups of values
    own: u32,      // each group of queries and of keys has a row of gains of its own
    eps: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;

override WG: u32 = 64u;
/// The mean is subtracted first: a LayerNorm.
override CENTRED: bool = false;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.y >= frame[1] {
        return;
    }
    let is_query = group.x < params.q_norms;
    let is_value = group.x >= params.q_norms + params.k_norms;
    let nth = select(group.x - params.q_norms, group.x, is_query);
    let size = select(params.k_size, params.q_size, is_query);
    let at = group.y * params.stride + select(params.q_norms * params.q_size, 0u, is_query) + nth * size;
    let q_rows = select(min(params.q_norms, 1u), params.q_norms, params.own != 0u);
    let gain_at = select(q_rows * params.q_size, 0u, is_query) + select(0u, nth * size, params.own != 0u);

    var mean = 0.0;
    if CENTRED {
        var total = 0.0;
        for (var i = lane; i < size; i += WG) {
            total += qkv[at + i];
        }
        mean = reduce_sum(lane, total) / f32(size);
    }

    var sum = 0.0;
    for (var i = lane; i < size; i += WG) {
        let v = qkv[at + i] - mean;
        sum += v * v;
    }
    let mean_square = reduce_sum(lane, sum) / f32(size);
    let scale = 1.0 / sqrt(mean_square + params.eps);

    for (var i = lane; i < size; i += WG) {
        var v = (qkv[at + i] - mean) * scale;
        if !is_value {
            v *= gain[gain_at + i];
        }
        qkv[at + i] = v;
    }
}
