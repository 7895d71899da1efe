// lib/q2_k.wgsl — weights of type Q2_K: d s q - dmin t; five words of scales for eight units: a byte (s low, t high) for each 16 weights, then d, dmin
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
    let at = unit / 8u * 5u;
    let bytes = read_scales(at + unit % 8u / 2u) >> (16u * (unit % 2u));
    let st = vec4<f32>((vec4(bytes) >> vec4(0u, 8u, 4u, 12u)) & vec4(15u));
    let d = unpack_half2(read_scales(at + 4u));
    return Scaling(d.x * st.xy, -d.y * st.zw);
}
