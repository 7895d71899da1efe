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

var<workgroup> own_scratch: array<Eight, OWN>;   // [2, HD/8]: the key, the value
var<workgroup> scale_scratch: array<f32, 32u>;   // [2, HD/32]: of each block, 512 dimensions at most

fn stage_own(lane: u32, key_row: u32, value_row: u32, place: u32) {
    for (var e = lane; e < HEAD_DIM / 8u; e += WG) {
        own_scratch[e] = turned8(key_row, 8u * e, place);
        own_scratch[HEAD_DIM / 8u + e] = raw8(value_row + 8u * e);
    }
    workgroupBarrier();
    for (var b = lane; b < HEAD_DIM / 16u; b += WG) {
        scale_scratch[b] = scale_of_block(b);
    }
    workgroupBarrier();
}

fn scale_of_block(b: u32) -> f32 {
    let p = own_scratch[4u * b];
    let q = own_scratch[4u * b + 1u];
    let r = own_scratch[4u * b + 2u];
    let s = own_scratch[4u * b + 3u];
    let least = min(min(min(p.a, p.b), min(q.a, q.b)), min(min(r.a, r.b), min(s.a, s.b)));
    let most = max(max(max(p.a, p.b), max(q.a, q.b)), max(max(r.a, r.b), max(s.a, s.b)));
    return scale_of(min(min(least.x, least.y), min(least.z, least.w)), max(max(most.x, most.y), max(most.z, most.w)));
}

/// What the eight at `i` are stored as.
fn own_words(i: u32) -> vec2<u32> {
    let d = scale_scratch[i / 4u];
    return words_of(own_scratch[i], select(0.0, 1.0 / d, d != 0.0));
}

/// The eight at `i` as they will be read back.
fn own(i: u32) -> Eight {
    return eight_of(own_words(i), unpack_half2(half_pair(vec2(scale_scratch[i / 4u], 0.0))).x);
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

/// The scales of block b and of the next; of a head's last, where it is alone, its own twice.
fn own_scales(b: u32, last: u32) -> u32 {
    return half_pair(vec2(scale_scratch[b], scale_scratch[min(b + 1u, last)]));
}

fn store8(at: u32, e: u32, key: Eight, value: Eight) {
    let eights = HEAD_DIM / 8u;
    let blocks = HEAD_DIM / 32u;
    if e * EIGHT_WORDS % 4u == 0u {
        k[quants_at(at, e)] = own_quants(e);
        v[quants_at(at, e)] = own_quants(eights + e);
    }
    if e % 8u == 0u {
        let i = scales_at(at, e);
        // Not by an index: Windows' FXC writes to no component of a vector that is chosen as it runs.
        let of_slot = vec4(0u, 1u, 2u, 3u) == vec4(at % 4u);
        k[i] = select(k[i], vec4(own_scales(e / 4u, blocks - 1u)), of_slot);
        v[i] = select(v[i], vec4(own_scales(blocks + e / 4u, 2u * blocks - 1u)), of_slot);
    }
}
