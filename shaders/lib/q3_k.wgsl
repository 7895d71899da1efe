// lib/q3_k.wgsl — weights of type Q3_K: d (s - 32) (q - 4); twelve words of scales for eight units: three of s, d, then the third bits of each unit
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let pair = read_quants(unit / 2u);
    let q = select(pair.xy, pair.zw, unit % 2u == 1u);
    let third = read_scales(unit / 8u * 12u + 4u + unit % 8u);
    return Words(low_pairs(q) | low_bits(third, 4u), high_pairs(q) | high_bits(third, 4u));
}

fn numbers(unit: u32) -> Block {
    return block_of_words(words(unit));
}

/// Six bits of s for part p of 16.
fn part_scale(at: u32, p: u32) -> f32 {
    let low = (read_scales(at + p % 8u / 4u) >> (p % 4u * 8u + p / 8u * 4u)) & 15u;
    let high = (read_scales(at + 2u) >> (p % 4u * 8u + p / 4u * 2u)) & 3u;
    return f32(i32(low | (high << 4u)) - 32);
}

fn scaling(unit: u32) -> Scaling {
    let at = unit / 8u * 12u;
    let part = unit % 8u * 2u;
    let d = unpack_half2(read_scales(at + 3u)).x;
    let s = d * vec2(part_scale(at, part), part_scale(at, part + 1u));
    return Scaling(s, -4.0 * s);
}
