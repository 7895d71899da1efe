// lib/nibbles.wgsl — the product of a unit of four-bit numbers.
//
// Gives:  prepared(x) -> what unit_dot wants of 32 activations
//         unit_dot(unit, x) -> their product with the weights of a unit, whose halves have one scale
//         unpacked(unit), unpacked_dot(unpacked(unit), x) -> the same in two steps, for one unit and several x
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

struct Unpacked {
    q: Block,
    d: f32,
    m: f32,
}

fn unpacked(unit: u32) -> Unpacked {
    let q = read_quants(unit);
    let by = scaling(unit);
    let numbers = Block(
        low_in_place(q.x), low_in_place(q.y), low_in_place(q.z), low_in_place(q.w),
        high_in_place(q.x), high_in_place(q.y), high_in_place(q.z), high_in_place(q.w),
    );
    return Unpacked(numbers, by.d.x, by.m.x);
}

fn unpacked_dot(w: Unpacked, x: Prepared) -> f32 {
    var low = w.q.a * x.x.a;
    low = fma(w.q.b, x.x.b, low);
    low = fma(w.q.c, x.x.c, low);
    low = fma(w.q.d, x.x.d, low);
    var high = w.q.e * x.x.e;
    high = fma(w.q.f, x.x.f, high);
    high = fma(w.q.g, x.x.g, high);
    high = fma(w.q.h, x.x.h, high);
    return w.d * sum4(low + high) + w.m * x.sum;
}

fn unit_dot(unit: u32, x: Prepared) -> f32 {
    return unpacked_dot(unpacked(unit), x);
}
