// lib/q5_0.wgsl — weights of type Q5_0: d (q - 16); three words of scales for two units: their d, the fifth bits of each
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    let fifth = read_scales(unit / 2u * 3u + 1u + unit % 2u);
    return Words(low_nibbles(q) | low_bits(fifth, 16u), high_nibbles(q) | high_bits(fifth, 16u));
}

fn numbers(unit: u32) -> Block {
    return block_of_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let pair = unpack_half2(read_scales(unit / 2u * 3u));
    let d = select(pair.x, pair.y, unit % 2u == 1u);
    return Scaling(vec2(d), vec2(-16.0 * d));
}
