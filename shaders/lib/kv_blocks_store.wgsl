// lib/kv_blocks_store.wgsl — how the token's own key and value are stored by the kernel that attends: blocks of 32
// dimensions, whose scale depends on all of them.
//
// Needs from the kernel:  k, v: array<vec4<u32>>, to be written; turned8(head, d, phase); raw8(at); WG, HEAD_DIM;
//                         OWN = HD/4
// Gives:                  stage_own(lane, key_row, value_row, place) -> the key and the value in workgroup memory, with a
//                         barrier
//                         own_key(key_row, e, place), own_value(value_row, e) -> dimensions 8 e to 8 e + 7 as they will be
//                         read back; store8(at, e, key, value) stores what begins with them
// Uses:                   lib/kv_blocks.wgsl, lib/half.wgsl

/// HD/4: naga 30 takes no product of overrides for a size before the last of them is declared.
override OWN: u32 = 128u;

var<workgroup> own_scratch: array<Eight, OWN>; // [2, HD/8]: the key, the value

fn stage_own(lane: u32, key_row: u32, value_row: u32, place: u32) {
    for (var e = lane; e < HEAD_DIM / 8u; e += WG) {
        own_scratch[e] = turned8(key_row, 8u * e, place);
        own_scratch[HEAD_DIM / 8u + e] = raw8(value_row + 8u * e);
    }
    workgroupBarrier();
}

/// The scale of the block that has the eight at `i`, as it comes out.
fn own_scale(i: u32) -> f32 {
    let at = i / 4u * 4u;
    let a = own_scratch[at];
    let b = own_scratch[at + 1u];
    let c = own_scratch[at + 2u];
    let d = own_scratch[at + 3u];
    let least = min(min(min(a.a, a.b), min(b.a, b.b)), min(min(c.a, c.b), min(d.a, d.b)));
    let most = max(max(max(a.a, a.b), max(b.a, b.b)), max(max(c.a, c.b), max(d.a, d.b)));
    return scale_of(min(min(least.x, least.y), min(least.z, least.w)), max(max(most.x, most.y), max(most.z, most.w)));
}

fn inverse(d: f32) -> f32 {
    return select(0.0, 1.0 / d, d != 0.0);
}

fn own_words(i: u32) -> vec2<u32> {
    return words_of(own_scratch[i], inverse(own_scale(i)));
}

fn own(i: u32) -> Eight {
    let d = own_scale(i);
    return eight_of(words_of(own_scratch[i], inverse(d)), unpack_half2(half_pair(vec2(d, 0.0))).x);
}

fn own_key(key_row: u32, e: u32, place: u32) -> Eight {
    return own(e);
}

fn own_value(value_row: u32, e: u32) -> Eight {
    return own(HEAD_DIM / 8u + e);
}

/// A vec4 of quants, which begins with the eight at `i`.
fn own_quants(i: u32) -> vec4<u32> {
    let pair = vec4(own_words(i), own_words(i + 1u));
    if EIGHT_WORDS == 2u {
        return pair;
    }
    return vec4(pair.xz, own_words(i + 2u).x, own_words(i + 3u).x);
}

/// The scales of two blocks, or of the last, which begin with the eight at `i`, `e` of its head.
fn own_scales(i: u32, e: u32) -> u32 {
    let next = select(i, i + 4u, e + 4u < HEAD_DIM / 8u);
    return half_pair(vec2(own_scale(i), own_scale(next)));
}

fn store8(at: u32, e: u32, key: Eight, value: Eight) {
    let eights = HEAD_DIM / 8u;
    if e * EIGHT_WORDS % 4u == 0u {
        k[quants_at(at, e)] = own_quants(e);
        v[quants_at(at, e)] = own_quants(eights + e);
    }
    if e % 8u == 0u {
        let i = scales_at(at, e);
        var keys = k[i];
        keys[at % 4u] = own_scales(e, e);
        k[i] = keys;
        var values = v[i];
        values[at % 4u] = own_scales(eights + e, e);
        v[i] = values;
    }
}
