// rope_store — splits qkv; turns every query at its three phases and every key at its one; stores K and V
//
//   binding  name    access   type   shape                    unit
//   0        params  read     Params
//   1        frame   read     u32    [4]                      n: position of the first token, tokens
//   2        qkv     read     f32    [T, (H + 2 KV) HD]       activations
//   3        turns   read     f32    [S + 2N, R/2, 2]         cos and sin of each phase
//   4        q       write    f32    [T, 3, H HD]             queries at: this lap, lap before, sinks
//   5        k       write    u32    [S + N, KV HD words]     keys, f16 pairs or f32 bits; or as lib/kv_blocks.wgsl has them
//   6        v       write    u32    [S + N, KV HD words]     values, the same
//
//   grid:      [H + 2 KV, T, 1] workgroups, one a head and token
//   requires:  HD and R even; of blocks HD a multiple of 32
//   uses:      lib/attention_params.wgsl, lib/ring.wgsl, lib/rope.wgsl, lib/half.wgsl; lib/store_pairs.wgsl, or
//              lib/store_blocks.wgsl with one lib/kv_<type>.wgsl of blocks
//   twin:      src/reference/rope_store.rs

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> k: array<u32>;
@group(0) @binding(6) var<storage, read_write> v: array<u32>;

override WG: u32 = 64u;

/// Dimension d of a key or a value as it is kept.
fn kept(head: u32, d: u32, place: u32, is_key: bool) -> f32 {
    if is_key {
        return turned(head, d, place);
    }
    return qkv[head + d];
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let token = group.y;
    if token >= frame[1] {
        return;
    }
    let ring = Ring(params.sinks, params.window, params.slots);
    let n = frame[0] + token;
    let HD = params.head_dim;
    let head = (token * (params.heads + 2u * params.kv_heads) + group.x) * HD;

    if group.x < params.heads {
        let phases = ring_phases(ring, n);
        let row = params.heads * HD;
        let at = token * 3u * row + group.x * HD;
        for (var d = lane; d < HD; d += WG) {
            q[at + d] = turned(head, d, phases.x);
            q[at + row + d] = turned(head, d, phases.y);
            q[at + 2u * row + d] = turned(head, d, phases.z);
        }
        return;
    }
    let place = ring_place(ring, n);
    let is_key = group.x < params.heads + params.kv_heads;
    let kv_head = (group.x - params.heads) % params.kv_heads;
    store_head(lane, head, place, kv_head, is_key);
}
