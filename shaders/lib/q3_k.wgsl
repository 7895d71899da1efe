// lib/q3_k.wgsl — weights of type Q3_K: d (s - 32) (q - 4); twelve words of scales for eight units: three of s, d, then the third bits of each unit
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

/// Six bits of s for part p of 16.
fn part_scale(at: u32, p: u32) -> f32 {
    let low = (scales[at + p % 8u / 4u] >> (p % 4u * 8u + p / 8u * 4u)) & 15u;
    let high = (scales[at + 2u] >> (p % 4u * 8u + p / 4u * 2u)) & 3u;
    return f32(i32(low | (high << 4u)) - 32);
}

fn weights(unit: u32) -> Block {
    let at = unit / 8u * 12u;
    let part = unit % 8u * 2u;
    let d = unpack2x16float(scales[at + 3u]).x;
    let s = d * vec2(part_scale(at, part), part_scale(at, part + 1u));
    let words = quants[unit / 2u];
    let low = block_of_pairs(select(words.xy, words.zw, unit % 2u == 1u));
    let q = block_sum(low, block_of_bits(scales[at + 4u + unit % 8u], 4u));
    return block_scaled_by_halves(q, s, -4.0 * s);
}
