// lib/tq2_0.wgsl — weights of types TQ2_0 and TQ1_0: d (q - 1), q 0 to 2, in two bits; a word of scales for eight units: their d
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn numbers(unit: u32) -> Block {
    let pair = read_quants(unit / 2u);
    let q = select(pair.xy, pair.zw, unit % 2u == 1u);
    return block_of_words(Words(low_pairs(q), high_pairs(q)));
}

fn scaling(unit: u32) -> Scaling {
    let d = unpack_half2(read_scales(unit / 8u)).x;
    return Scaling(vec2(d), vec2(-d));
}
