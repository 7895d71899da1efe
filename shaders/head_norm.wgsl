// head_norm — qkv[t, h, i] <- qkv[t, h, i] * gain[g, i] / sqrt(mean_i(qkv[t, h, i]^2) + eps),  h a head of queries (g = 0) or
//             of keys (g = 1); heads of values are left alone
//
//   binding  name    access   type   shape                unit
//   0        params  read     Params
//   1        frame   read     u32    [4]                  n: position of the first token, tokens: their number
//   2        gain    read     f32    [2, HD]              the queries', the keys'
//   3        qkv     write    f32    [T, (H + 2 KV) HD]   activations
//
//   grid:      [H + KV, T, 1] workgroups, one a head and token
//   requires:  WG a power of two; any HD
//   uses:      lib/reduce.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one subgroup (head_norm_subgroup)
//   twin:      src/reference/head_norm.rs

struct Params {
    heads: u32,     // H
    kv_heads: u32,  // KV
    head_dim: u32,  // HD
    eps: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.y >= frame[1] {
        return;
    }
    let HD = params.head_dim;
    let head = (group.y * (params.heads + 2u * params.kv_heads) + group.x) * HD;
    let gain_at = select(0u, HD, group.x >= params.heads);

    var sum = 0.0;
    for (var d = lane; d < HD; d += WG) {
        sum += qkv[head + d] * qkv[head + d];
    }
    let mean = reduce_sum(lane, sum) / f32(HD);
    let scale = 1.0 / sqrt(mean + params.eps);

    for (var d = lane; d < HD; d += WG) {
        qkv[head + d] = qkv[head + d] * scale * gain[gain_at + d];
    }
}
