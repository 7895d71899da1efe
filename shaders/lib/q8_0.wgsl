// lib/q8_0.wgsl — weights of type Q8_0: d q; the f16 scales of two units share a word
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    return Words(read_quants(2u * unit), read_quants(2u * unit + 1u));
}

fn numbers(unit: u32) -> Block {
    return block_of_signed_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let pair = unpack_half2(read_scales(unit / 2u));
    return Scaling(vec2(select(pair.x, pair.y, unit % 2u == 1u)), vec2(0.0));
}
