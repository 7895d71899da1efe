// lib/q4_1.wgsl — weights of type Q4_1: d q + m; a word of scales a unit: d, m
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
    let dm = unpack_half2(read_scales(unit));
    return Scaling(dm.xx, dm.yy);
}
