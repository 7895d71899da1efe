// lib/mxfp4.wgsl — weights of type MXFP4: 2^(e - 128) q, with q twice a number of one sign, two exponent and one fraction bit; the e of four units share a word
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  words(unit), numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl

/// Each byte's code as 0, 1, 2, 3, 4, 6, 8 or 12, or less than nothing where its fourth bit is set: as signed bytes.
fn doubled(code: vec4<u32>) -> vec4<u32> {
    let size = code & vec4(0x07070707u);
    let fraction = code & vec4(0x01010101u);
    let exponent = (code >> vec4(1u)) & vec4(0x01010101u);
    // What a code from 4 on stands for beyond itself: 0, 1, 2, 5.
    let more = (size & vec4(0x03030303u)) + 2u * (fraction & exponent);
    let large = ((code >> vec4(2u)) & vec4(0x01010101u)) * 7u;
    let magnitude = size + (more & large);
    let negative = ((code >> vec4(3u)) & vec4(0x01010101u)) * 15u;
    // No byte takes from its neighbour: 128 is added to each before, and taken off after.
    let biased = (vec4(0x80808080u) + magnitude) - 2u * (magnitude & negative);
    return biased ^ vec4(0x80808080u);
}

fn words(unit: u32) -> Words {
    let q = read_quants(unit);
    return Words(doubled(low_nibbles(q)), doubled(high_nibbles(q)));
}

fn numbers(unit: u32) -> Block {
    return block_of_signed_words(words(unit));
}

fn scaling(unit: u32) -> Scaling {
    let e = (read_scales(unit / 4u) >> (unit % 4u * 8u)) & 255u;
    let normal = (max(e, 1u) - 1u) << 23u;
    let d = bitcast<f32>(select(normal, 0x00200000u << (e & 1u), e < 2u));
    return Scaling(vec2(d), vec2(0.0));
}
