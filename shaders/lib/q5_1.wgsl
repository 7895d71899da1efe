// lib/q5_1.wgsl — weights of type Q5_1: d q + m; two words of scales a unit: d and m, the fifth bits
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    let fifth = read_scales(2u * unit + 1u);
    return Words(low_nibbles(q) | low_bits(fifth, 16u), high_nibbles(q) | high_bits(fifth, 16u));
}

fn numbers(unit: u32) -> Block {
    return block_of_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let dm = unpack_half2(read_scales(2u * unit));
    return Scaling(dm.xx, dm.yy);
}
