// lib/q5_k.wgsl — weights of type Q5_K: d s q - dmin t; twelve words of scales for eight units: as Q4_K, then the fifth bits of each unit
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/scale_min.wgsl

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    let fifth = read_scales(unit / 8u * 12u + 4u + unit % 8u);
    return Words(low_nibbles(q) | low_bits(fifth, 16u), high_nibbles(q) | high_bits(fifth, 16u));
}

fn numbers(unit: u32) -> Block {
    return block_of_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let st = scale_min(unit / 8u * 12u, unit % 8u);
    return Scaling(st.xx, -st.yy);
}
