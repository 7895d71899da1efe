// lib/block.wgsl — 32 neighbouring weights or activations, and how packed integers become numbers.
//
// Every lib/<format>.wgsl builds on it and gives  weights(unit) -> Block

struct Block {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
    e: vec4<f32>,
    f: vec4<f32>,
    g: vec4<f32>,
    h: vec4<f32>,
}

fn block_dot(u: Block, v: Block) -> f32 {
    let near = u.a * v.a + u.b * v.b + u.c * v.c + u.d * v.d;
    let far = u.e * v.e + u.f * v.f + u.g * v.g + u.h * v.h;
    let sum = near + far;
    return (sum.x + sum.y) + (sum.z + sum.w);
}

/// scale * q + offset
fn block_scaled(q: Block, scale: f32, offset: f32) -> Block {
    return Block(
        q.a * scale + offset, q.b * scale + offset, q.c * scale + offset, q.d * scale + offset,
        q.e * scale + offset, q.f * scale + offset, q.g * scale + offset, q.h * scale + offset,
    );
}

/// The same with one scale and offset for each half.
fn block_scaled_by_halves(q: Block, scale: vec2<f32>, offset: vec2<f32>) -> Block {
    return Block(
        q.a * scale.x + offset.x, q.b * scale.x + offset.x,
        q.c * scale.x + offset.x, q.d * scale.x + offset.x,
        q.e * scale.y + offset.y, q.f * scale.y + offset.y,
        q.g * scale.y + offset.y, q.h * scale.y + offset.y,
    );
}

fn block_sum(u: Block, v: Block) -> Block {
    return Block(
        u.a + v.a, u.b + v.b, u.c + v.c, u.d + v.d, u.e + v.e, u.f + v.f, u.g + v.g, u.h + v.h,
    );
}

/// The bits of `mask` of each byte, from bit `at` on.
fn of_bytes(word: u32, at: u32, mask: u32) -> vec4<f32> {
    return vec4<f32>((vec4(word) >> (vec4(0u, 8u, 16u, 24u) + at)) & vec4(mask));
}

fn signed_bytes(word: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

/// 32 numbers of four bits: byte i holds number i low and number i + 16 high.
fn block_of_nibbles(q: vec4<u32>) -> Block {
    return Block(
        of_bytes(q.x, 0u, 15u), of_bytes(q.y, 0u, 15u), of_bytes(q.z, 0u, 15u), of_bytes(q.w, 0u, 15u),
        of_bytes(q.x, 4u, 15u), of_bytes(q.y, 4u, 15u), of_bytes(q.z, 4u, 15u), of_bytes(q.w, 4u, 15u),
    );
}

/// 32 numbers of two bits: byte i holds numbers i, i + 8, i + 16 and i + 24, the first lowest.
fn block_of_pairs(q: vec2<u32>) -> Block {
    return Block(
        of_bytes(q.x, 0u, 3u), of_bytes(q.y, 0u, 3u), of_bytes(q.x, 2u, 3u), of_bytes(q.y, 2u, 3u),
        of_bytes(q.x, 4u, 3u), of_bytes(q.y, 4u, 3u), of_bytes(q.x, 6u, 3u), of_bytes(q.y, 6u, 3u),
    );
}

fn four_bits(word: u32, at: u32, value: u32) -> vec4<f32> {
    return vec4<f32>(((vec4(word) >> (vec4(0u, 1u, 2u, 3u) + at)) & vec4(1u)) * value);
}

/// Bit i of the word, as number i, worth `value`.
fn block_of_bits(word: u32, value: u32) -> Block {
    return Block(
        four_bits(word, 0u, value), four_bits(word, 4u, value),
        four_bits(word, 8u, value), four_bits(word, 12u, value),
        four_bits(word, 16u, value), four_bits(word, 20u, value),
        four_bits(word, 24u, value), four_bits(word, 28u, value),
    );
}

fn block_of_bytes(q: vec4<u32>, r: vec4<u32>) -> Block {
    return Block(
        signed_bytes(q.x), signed_bytes(q.y), signed_bytes(q.z), signed_bytes(q.w),
        signed_bytes(r.x), signed_bytes(r.y), signed_bytes(r.z), signed_bytes(r.w),
    );
}
