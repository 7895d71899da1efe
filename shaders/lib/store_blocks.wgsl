// lib/store_blocks.wgsl — how a whole head of a key or a value is stored: blocks of 32 dimensions, each with a scale.
//
// Needs from the kernel:  params; k, v: array<u32>, to be written, as lib/kv_blocks.wgsl has them; kept(head, d, place,
//                         is_key); WG
// Gives:                  store_head(lane, head, place, kv_head, is_key): of the head that starts at qkv[head]
// Uses:                   lib/attention_params.wgsl, lib/eight.wgsl, lib/half.wgsl, one lib/kv_<type>.wgsl of blocks
//
// A lane has eight dimensions, and finds the scale of the block that they are of by itself.

var<workgroup> head_scratch: array<Eight, 64>; // [HD/8], 512 dimensions at most

fn block_scale(e: u32) -> f32 {
    let at = e / 4u * 4u;
    let a = head_scratch[at];
    let b = head_scratch[at + 1u];
    let c = head_scratch[at + 2u];
    let d = head_scratch[at + 3u];
    let least = min(min(min(a.a, a.b), min(b.a, b.b)), min(min(c.a, c.b), min(d.a, d.b)));
    let most = max(max(max(a.a, a.b), max(b.a, b.b)), max(max(c.a, c.b), max(d.a, d.b)));
    return scale_of(min(min(least.x, least.y), min(least.z, least.w)), max(max(most.x, most.y), max(most.z, most.w)));
}

fn put(at: u32, word: u32, is_key: bool) {
    if is_key {
        k[at] = word;
    } else {
        v[at] = word;
    }
}

fn kept4(head: u32, d: u32, place: u32, is_key: bool) -> vec4<f32> {
    return vec4(
        kept(head, d, place, is_key), kept(head, d + 1u, place, is_key),
        kept(head, d + 2u, place, is_key), kept(head, d + 3u, place, is_key),
    );
}

fn store_head(lane: u32, head: u32, place: u32, kv_head: u32, is_key: bool) {
    let eights = params.head_dim / 8u;
    for (var e = lane; e < eights; e += WG) {
        head_scratch[e] = Eight(kept4(head, 8u * e, place, is_key), kept4(head, 8u * e + 4u, place, is_key));
    }
    workgroupBarrier();

    // In words: what lib/kv_blocks.wgsl has in vec4s.
    let quants = eights * EIGHT_WORDS;
    let both = 4u * quants + 4u * ((eights + 7u) / 8u);
    let begin = (place / 4u * params.kv_heads + kv_head) * both;
    for (var e = lane; e < eights; e += WG) {
        let d = block_scale(e);
        let words = words_of(head_scratch[e], select(0.0, 1.0 / d, d != 0.0));
        let at = begin + place % 4u * quants + e * EIGHT_WORDS;
        put(at, words.x, is_key);
        if EIGHT_WORDS == 2u {
            put(at + 1u, words.y, is_key);
        }
        if e % 8u == 0u {
            let next = block_scale(select(e, e + 4u, e + 4u < eights));
            put(begin + 4u * quants + e / 2u + place % 4u, half_pair(vec2(d, next)), is_key);
        }
    }
}
