// lib/iq4_xs.wgsl — weights of type IQ4_XS: d (s - 32) q, with q one of sixteen numbers; two words of scales for eight units: d and the upper two bits of each s, then the lower four
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/iq4_codes.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    return Words(from_codes(low_nibbles(q)), from_codes(high_nibbles(q)));
}

fn numbers(unit: u32) -> Block {
    return block_of_signed_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let at = unit / 8u * 2u;
    let part = unit % 8u;
    let first = read_scales(at);
    let low = (read_scales(at + 1u) >> (4u * part)) & 15u;
    let high = (first >> (16u + 2u * part)) & 3u;
    let d = unpack_half2(first).x * f32(i32(low | (high << 4u)) - 32);
    return Scaling(vec2(d), vec2(0.0));
}
