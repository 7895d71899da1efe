// lib/q4_0.wgsl — weights of type Q4_0: d (q - 8); the f16 scales of two units share a word
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    return Words(low_nibbles(q), high_nibbles(q));
}

fn numbers(unit: u32) -> Block {
    return block_of_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let pair = unpack_half2(read_scales(unit / 2u));
    let d = select(pair.x, pair.y, unit % 2u == 1u);
    return Scaling(vec2(d), vec2(-8.0 * d));
}
