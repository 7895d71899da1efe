// lib/mass.wgsl — what a logit weighs, as whole numbers: their sums do not depend on the order in which lanes come
//
// A key orders as its logit does; 0 is none. A mass is exp(logit - highest) in units of 2^-31; sums of masses have 64 bits,
// low word first.
//
// Needs from the kernel:  lib/random.wgsl (mul32)
// Gives:                  key_of(logit), logit_of(key), mass_of(key, highest, temperature)
//                         add64, sub64, less64, share64: sums, differences, order, a fraction in [0, 1) of a sum

const ONE: f32 = 2147483648.0; // of a mass

fn key_of(logit: f32) -> u32 {
    // -0 and 0 are one. By the bits: a compiler may leave out that 0 is added.
    let signed = bitcast<u32>(logit);
    let bits = select(signed, 0u, signed == 0x80000000u);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn mass_of(key: u32, highest: f32, temperature: f32) -> u32 {
    return u32(exp((logit_of(key) - highest) / temperature) * ONE);
}

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn sub64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn share64(a: vec2<u32>, share: f32) -> vec2<u32> {
    // Of 2^-32, which holds every f32 in [2^-8, 1) exactly.
    let part = u32(share * 4294967296.0);
    return add64(vec2(mul32(a.x, part).y, 0u), mul32(a.y, part));
}
