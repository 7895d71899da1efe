// lib/nibbles.wgsl — the product of a unit of four-bit numbers.
//
// Gives:  prepared(x) -> what unit_dot wants of 32 activations
//         unit_dot(unit, x) -> their product with the weights of a unit, whose halves have one scale
// Uses:   lib/block.wgsl, one lib/<type>.wgsl
//
// For software drivers, which spend an instruction on every shift. A nibble stays where it is in its word, worth a
// power of two too much, and the activation is worth that much less, once for all rows: both are exact. Only the last
// of a word is shifted, as it would be negative.

struct Prepared {
    x: Block,
    sum: f32,
}

fn prepared(x: Block) -> Prepared {
    let sums = block_sums(x);
    let low = vec4(1.0, 0x1p-8, 0x1p-16, 1.0);
    let high = vec4(0x1p-4, 0x1p-12, 0x1p-20, 1.0);
    let worth = Block(
        x.a * low, x.b * low, x.c * low, x.d * low,
        x.e * high, x.f * high, x.g * high, x.h * high,
    );
    return Prepared(worth, sums.x + sums.y);
}

fn low_in_place(word: u32) -> vec4<f32> {
    let kept = vec4(word, word, word, word >> 24u) & vec4(0xfu, 0xf00u, 0xf0000u, 0xfu);
    return vec4<f32>(vec4<i32>(kept));
}

fn high_in_place(word: u32) -> vec4<f32> {
    let kept = vec4(word, word, word, word >> 28u) & vec4(0xf0u, 0xf000u, 0xf00000u, 0xfu);
    return vec4<f32>(vec4<i32>(kept));
}

fn numbers_dot(unit: u32, x: Block) -> f32 {
    let q = read_quants(unit);
    var low = low_in_place(q.x) * x.a;
    low = fma(low_in_place(q.y), x.b, low);
    low = fma(low_in_place(q.z), x.c, low);
    low = fma(low_in_place(q.w), x.d, low);
    var high = high_in_place(q.x) * x.e;
    high = fma(high_in_place(q.y), x.f, high);
    high = fma(high_in_place(q.z), x.g, high);
    high = fma(high_in_place(q.w), x.h, high);
    let sums = low + high;
    return sum4(sums);
}

fn unit_dot(unit: u32, x: Prepared) -> f32 {
    let by = scaling(unit);
    return by.d.x * numbers_dot(unit, x.x) + by.m.x * x.sum;
}
