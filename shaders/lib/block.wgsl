// lib/block.wgsl — 32 neighbouring weights or activations, and how packed integers become numbers.
//
// Every lib/<format>.wgsl builds on it and gives numbers(unit) and scaling(unit); those of integers give words(unit),
// of which numbers(unit) are made, too. From these:
//
// Gives:  weights(unit) -> the 32 weights of a unit

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

/// 32 numbers as integers, in the bytes of eight words.
struct Words {
    low: vec4<u32>,
    high: vec4<u32>,
}

/// How numbers become weights: d q + m, for the first 16 and the last.
struct Scaling {
    d: vec2<f32>,
    m: vec2<f32>,
}

fn sum4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

/// Sums of u v over the first 16 and over the last.
fn block_dots(u: Block, v: Block) -> vec2<f32> {
    let near = fma(u.a, v.a, u.b * v.b) + fma(u.c, v.c, u.d * v.d);
    let far = fma(u.e, v.e, u.f * v.f) + fma(u.g, v.g, u.h * v.h);
    return vec2(sum4(near), sum4(far));
}

fn block_dot(u: Block, v: Block) -> f32 {
    let sums = block_dots(u, v);
    return sums.x + sums.y;
}

/// The sums of the first 16 and of the last.
fn block_sums(v: Block) -> vec2<f32> {
    return vec2(sum4((v.a + v.b) + (v.c + v.d)), sum4((v.e + v.f) + (v.g + v.h)));
}

/// scale q + offset, of the first 16 and of the last
fn block_scaled(q: Block, scale: vec2<f32>, offset: vec2<f32>) -> Block {
    return Block(
        q.a * scale.x + offset.x, q.b * scale.x + offset.x,
        q.c * scale.x + offset.x, q.d * scale.x + offset.x,
        q.e * scale.y + offset.y, q.f * scale.y + offset.y,
        q.g * scale.y + offset.y, q.h * scale.y + offset.y,
    );
}

fn weights(unit: u32) -> Block {
    let by = scaling(unit);
    return block_scaled(numbers(unit), by.d, by.m);
}

fn signed_bytes(word: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

fn unsigned_bytes(word: u32) -> vec4<f32> {
    return vec4<f32>((vec4(word) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u));
}

/// AMD's GPUs turn any byte into a float in one instruction, so that what is joined of several bits is joined before.
fn block_of_words(q: Words) -> Block {
    return Block(
        unsigned_bytes(q.low.x), unsigned_bytes(q.low.y), unsigned_bytes(q.low.z), unsigned_bytes(q.low.w),
        unsigned_bytes(q.high.x), unsigned_bytes(q.high.y), unsigned_bytes(q.high.z), unsigned_bytes(q.high.w),
    );
}

/// 32 numbers of four bits: byte i holds number i low and number i + 16 high.
fn low_nibbles(q: vec4<u32>) -> vec4<u32> {
    return q & vec4(0x0f0f0f0fu);
}

fn high_nibbles(q: vec4<u32>) -> vec4<u32> {
    return (q >> vec4(4u)) & vec4(0x0f0f0f0fu);
}

/// 32 numbers of two bits: byte i holds numbers i, i + 8, i + 16 and i + 24, the first lowest.
fn low_pairs(q: vec2<u32>) -> vec4<u32> {
    return (q.xyxy >> vec4(0u, 0u, 2u, 2u)) & vec4(0x03030303u);
}

fn high_pairs(q: vec2<u32>) -> vec4<u32> {
    return (q.xyxy >> vec4(4u, 4u, 6u, 6u)) & vec4(0x03030303u);
}

/// 32 numbers of one bit, worth `value`, a power of two up to 16: byte i holds numbers i, i + 4, ... i + 28, the first lowest.
fn low_bits(bits: u32, value: u32) -> vec4<u32> {
    let wide = vec4(bits, bits >> 1u, bits >> 2u, bits >> 3u) & vec4(0x01010101u);
    return wide * value;
}

fn high_bits(bits: u32, value: u32) -> vec4<u32> {
    return low_bits(bits >> 4u, value);
}

fn block_of_signed_words(q: Words) -> Block {
    return Block(
        signed_bytes(q.low.x), signed_bytes(q.low.y), signed_bytes(q.low.z), signed_bytes(q.low.w),
        signed_bytes(q.high.x), signed_bytes(q.high.y), signed_bytes(q.high.z), signed_bytes(q.high.w),
    );
}
