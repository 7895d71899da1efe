// shift — moves what is in the cache's slots after the first `shift` down to the first, its keys turned back by as
//         many phases
//
//   k[S + j] = k[S + j + shift] turned by -shift,  v[S + j] = v[S + j + shift],  j < kept
//
//   binding  name    access   type   shape                 unit
//   0        params  read     Params
//   1        turns   read     f32    [S + 2N, R/2, 2]      cos and sin of each phase
//   2        k       write    u32    [S + N, KV HD words]  keys, f16 pairs or f32 bits
//   3        v       write    u32    [S + N, KV HD words]  values, the same
//
//   grid:      [KV, lines, 1] workgroups; one has a head of every slot that is a multiple of `shift` from its own, one
//              after the other: what it reads nobody else writes
//   requires:  HD = HEAD_DIM and R even; shift at least 1
//   uses:      lib/half.wgsl, lib/unpack_half.wgsl
//   twin:      src/reference/shift.rs

struct Params {
    kv_heads: u32,  // KV
    rope_dim: u32,  // R
    sinks: u32,     // S
    shift: u32,     // slots that are thrown away
    kept: u32,      // slots that move
    lines: u32,     // workgroups a head
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> k: array<u32>;
@group(0) @binding(3) var<storage, read_write> v: array<u32>;

override WG: u32 = 64u;
override HEAD_DIM: u32 = 64u;
override KV_F16: bool = true;
override NEOX: bool = false;

var<workgroup> key_scratch: array<f32, HEAD_DIM>;

/// Dimension d of the key, turned back: (a, b) -> (a cos + b sin, b cos - a sin).
fn turned_back(d: u32) -> f32 {
    let half = params.rope_dim / 2u;
    if d >= params.rope_dim {
        return key_scratch[d];
    }
    let first = select(d % 2u == 0u, d < half, NEOX);
    let pair = select(d / 2u, d % half, NEOX);
    let reach = select(1u, half, NEOX);
    // The table has the model's own factor in it, which the key has already: phase 0 is that factor alone.
    let turn = turns[params.shift * half + pair] / turns[pair].x;
    if first {
        return key_scratch[d] * turn.x + key_scratch[d + reach] * turn.y;
    }
    return key_scratch[d] * turn.x - key_scratch[d - reach] * turn.y;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let step = params.shift * params.kv_heads * HEAD_DIM;
    for (var own = group.y; own < params.shift; own += params.lines) {
        for (var j = own; j < params.kept; j += params.shift) {
            let to = ((params.sinks + j) * params.kv_heads + group.x) * HEAD_DIM;
            let source = to + step;
            for (var d = 2u * lane; d < HEAD_DIM; d += 2u * WG) {
                if KV_F16 {
                    let pair = unpack_half2(k[(source + d) / 2u]);
                    key_scratch[d] = pair.x;
                    key_scratch[d + 1u] = pair.y;
                    v[(to + d) / 2u] = v[(source + d) / 2u];
                } else {
                    key_scratch[d] = bitcast<f32>(k[source + d]);
                    key_scratch[d + 1u] = bitcast<f32>(k[source + d + 1u]);
                    v[to + d] = v[source + d];
                    v[to + d + 1u] = v[source + d + 1u];
                }
            }
            workgroupBarrier();
            for (var d = 2u * lane; d < HEAD_DIM; d += 2u * WG) {
                let pair = vec2(turned_back(d), turned_back(d + 1u));
                if KV_F16 {
                    k[(to + d) / 2u] = half_pair(pair);
                } else {
                    k[to + d] = bitcast<u32>(pair.x);
                    k[to + d + 1u] = bitcast<u32>(pair.y);
                }
            }
            workgroupBarrier();
        }
    }
}
