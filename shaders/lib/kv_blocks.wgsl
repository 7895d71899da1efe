// lib/kv_blocks.wgsl — eight neighbouring dimensions of a stored key or value: blocks of 32 dimensions, each with a scale.
//
//   k, v: array<vec4<u32>>, [(S + N)/4 up, KV]: of four neighbouring slots, a head:
//         [4, HD EIGHT_WORDS/32]: quants, a slot after the other
//         [HD/64 up, 4]:          scales, a word of each slot with two halves: those of two blocks
//
// Four slots have whole vec4s of scales between them, and only the one who stores a head of a slot writes to them.
//
// Needs from the kernel:  k, v; HEAD_DIM, a multiple of 32
// Gives:                  kv_at(slot, kv_head, kv_heads) -> where a head of a slot is
//                         k8(at, e), v8(at, e) -> its dimensions 8 e to 8 e + 7; k16(at, e), e even -> and eight more
//                         v8_where(at, e, wanted) -> the same, or nothing
// Uses:                   lib/eight.wgsl, lib/unpack_half.wgsl, one lib/kv_<type>.wgsl of blocks

/// vec4s of a slot's quants, of a head.
fn quants_of_slot() -> u32 {
    return HEAD_DIM / 32u * EIGHT_WORDS;
}

fn kv_at(slot: u32, kv_head: u32, kv_heads: u32) -> u32 {
    let both = 4u * quants_of_slot() + (HEAD_DIM + 63u) / 64u;
    // Where the four begin, and which of them it is.
    return 4u * ((slot / 4u * kv_heads + kv_head) * both) + slot % 4u;
}

/// The vec4 that has the quants of eight dimensions.
fn quants_at(at: u32, e: u32) -> u32 {
    return at / 4u + at % 4u * quants_of_slot() + e * EIGHT_WORDS / 4u;
}

/// The vec4 that has their scale, a component a slot.
fn scales_at(at: u32, e: u32) -> u32 {
    return at / 4u + 4u * quants_of_slot() + e / 8u;
}

/// The scale of eight dimensions, of two that share a word.
fn scale_in(word: u32, e: u32) -> f32 {
    return unpack_half2(word >> (16u * (e / 4u % 2u))).x;
}

fn k8(at: u32, e: u32) -> Eight {
    let i = quants_at(at, e);
    let first = e * EIGHT_WORDS % 4u;
    var words = vec2(k[i][first], 0u);
    if EIGHT_WORDS == 2u {
        words.y = k[i][first + 1u];
    }
    return eight_of(words, scale_in(k[scales_at(at, e)][at % 4u], e));
}

fn k16(at: u32, e: u32) -> TwoEights {
    let d = scale_in(k[scales_at(at, e)][at % 4u], e);
    let words = k[quants_at(at, e)];
    if EIGHT_WORDS == 2u {
        return TwoEights(eight_of(words.xy, d), eight_of(words.zw, d));
    }
    let pair = select(words.xy, words.zw, e % 4u == 2u);
    return TwoEights(eight_of(pair, d), eight_of(pair.yx, d));
}

fn v8(at: u32, e: u32) -> Eight {
    let i = quants_at(at, e);
    let first = e * EIGHT_WORDS % 4u;
    var words = vec2(v[i][first], 0u);
    if EIGHT_WORDS == 2u {
        words.y = v[i][first + 1u];
    }
    return eight_of(words, scale_in(v[scales_at(at, e)][at % 4u], e));
}

fn v8_where(at: u32, e: u32, wanted: bool) -> Eight {
    let i = quants_at(at, e);
    let first = e * EIGHT_WORDS % 4u;
    var words = vec2(v[i][first], 0u);
    if EIGHT_WORDS == 2u {
        words.y = v[i][first + 1u];
    }
    // A scale may be anything where nothing was stored: quants alone would not do.
    return eight_of(words, scale_in(select(0u, v[scales_at(at, e)][at % 4u], wanted), e));
}
