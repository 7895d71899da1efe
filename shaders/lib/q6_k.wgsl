// lib/q6_k.wgsl — weights of type Q6_K: d s (q - 32); 21 words of scales for eight units: s in bytes for each 16 weights, d, then the upper two bits of each unit
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let upper = unit / 8u * 21u + 5u + 2u * (unit % 8u);
    let pairs = vec2(read_scales(upper), read_scales(upper + 1u));
    let q = read_quants(unit);
    return Words(
        low_nibbles(q) | (low_pairs(pairs) << vec4(4u)), high_nibbles(q) | (high_pairs(pairs) << vec4(4u)),
    );
}

fn numbers(unit: u32) -> Block {
    return block_of_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let at = unit / 8u * 21u;
    let d = unpack_half2(read_scales(at + 4u)).x;
    let s = unpack4xI8(read_scales(at + unit % 8u / 2u) >> (16u * (unit % 2u)));
    let by = d * vec2<f32>(s.xy);
    return Scaling(by, -32.0 * by);
}
