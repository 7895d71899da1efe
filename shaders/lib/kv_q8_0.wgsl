// lib/kv_q8_0.wgsl — keys and values as ggml's Q8_0: a block of 32 dimensions is d q, q signed bytes.
//
//   d = max |x| / 127,  q = x / d, rounded, halves away from zero; d is stored as a half, and divided by before that
//
// Gives:  EIGHT_WORDS: words of eight dimensions, four a word
//         eight_of(words, d) -> eight dimensions
//         scale_of(least, most) -> d of a block, by the least and the most of its dimensions
//         words_of(x, by) -> what eight dimensions are stored as; `by`: 1 / d
// Uses:   lib/eight.wgsl

const EIGHT_WORDS: u32 = 2u;

fn signed_bytes(word: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

fn eight_of(words: vec2<u32>, d: f32) -> Eight {
    return Eight(d * signed_bytes(words.x), d * signed_bytes(words.y));
}

fn scale_of(least: f32, most: f32) -> f32 {
    return max(-least, most) / 127.0;
}

fn bytes_of(x: vec4<f32>, by: f32) -> u32 {
    let scaled = clamp(x * by, vec4(-127.0), vec4(127.0));
    let size = vec4<u32>(floor(abs(scaled) + 0.5));
    let q = select(size, ~size + 1u, scaled < vec4(0.0)) & vec4(255u);
    return q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
}

fn words_of(x: Eight, by: f32) -> vec2<u32> {
    return vec2(bytes_of(x.a, by), bytes_of(x.b, by));
}
