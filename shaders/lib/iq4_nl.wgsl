// lib/iq4_nl.wgsl — weights of type IQ4_NL: d q, with q one of sixteen numbers; the f16 scales of two units share a word
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/iq4_codes.wgsl, lib/unpack_half.wgsl

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    return Words(from_codes(low_nibbles(q)), from_codes(high_nibbles(q)));
}

fn numbers(unit: u32) -> Block {
    return block_of_signed_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let pair = unpack_half2(read_scales(unit / 2u));
    let d = select(pair.x, pair.y, unit % 2u == 1u);
    return Scaling(vec2(d), vec2(0.0));
}
