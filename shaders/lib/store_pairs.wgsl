// lib/store_pairs.wgsl — how a whole head of a key or a value is stored: f16 pairs, or f32 bits.
//
// Needs from the kernel:  params; k, v: array<u32>, to be written, as lib/kv.wgsl has them; kept(head, d, place, is_key); WG
// Gives:                  store_head(lane, head, place, kv_head, is_key): of the head that starts at qkv[head]
// Uses:                   lib/attention_params.wgsl, lib/half.wgsl

override KV_F16: bool = true;

fn store_head(lane: u32, head: u32, place: u32, kv_head: u32, is_key: bool) {
    let HD = params.head_dim;
    for (var d = 2u * lane; d < HD; d += 2u * WG) {
        let at = (place * params.kv_heads + kv_head) * HD + d;
        let pair = vec2(kept(head, d, place, is_key), kept(head, d + 1u, place, is_key));
        if KV_F16 && is_key {
            k[at / 2u] = half_pair(pair);
        } else if KV_F16 {
            v[at / 2u] = half_pair(pair);
        } else if is_key {
            k[at] = bitcast<u32>(pair.x);
            k[at + 1u] = bitcast<u32>(pair.y);
        } else {
            v[at] = bitcast<u32>(pair.x);
            v[at + 1u] = bitcast<u32>(pair.y);
        }
    }
}
