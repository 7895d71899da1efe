// lib/kv_q4_0.wgsl — keys and values as ggml's Q4_0: a block of 32 dimensions is d (q - 8), q of four bits.
//
//   d = x / -8 for the x that is largest either way,  q = x / d + 8.5, cut off, 15 at most; d is stored as a half, and
//   divided by before that. Byte i of a word has dimension i low and dimension i + 4 high.
//
// Gives:  EIGHT_WORDS: words of eight dimensions
//         eight_of(words, d) -> eight dimensions
//         scale_of(least, most) -> d of a block, by the least and the most of its dimensions
//         words_of(x, by) -> what eight dimensions are stored as; `by`: 1 / d
// Uses:   lib/eight.wgsl

const EIGHT_WORDS: u32 = 1u;

fn nibbles(word: vec4<u32>, d: f32) -> vec4<f32> {
    return d * (vec4<f32>((word >> vec4(0u, 8u, 16u, 24u)) & vec4(15u)) - 8.0);
}

fn eight_of(words: vec2<u32>, d: f32) -> Eight {
    return Eight(nibbles(vec4(words.x), d), nibbles(vec4(words.x >> 4u), d));
}

fn scale_of(least: f32, most: f32) -> f32 {
    return select(least, most, most >= -least) / -8.0;
}

fn bits_of(x: vec4<f32>, by: f32) -> u32 {
    let q = vec4<u32>(clamp(x * by + 8.5, vec4(0.0), vec4(15.0)));
    return q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
}

fn words_of(x: Eight, by: f32) -> vec2<u32> {
    return vec2(bits_of(x.a, by) | (bits_of(x.b, by) << 4u), 0u);
}
