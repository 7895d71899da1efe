// lib/iq4_codes.wgsl — what the four-bit codes of IQ4_NL and IQ4_XS stand for.
//
// Gives:  from_codes(code) -> of each byte, a code of 0 to 15, the number: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25,
//         38, 53, 69, 89 or 113, as signed bytes
//
// A choice for each bit, made in all bytes of a word at once: a table that lanes index would lie in memory.

/// The bits of `one` where `which` is set, else those of `other`.
fn chosen(which: vec4<u32>, other: vec4<u32>, one: vec4<u32>) -> vec4<u32> {
    return (one & which) | (other & ~which);
}

/// The same of two bytes.
fn byte_of(which: vec4<u32>, other: u32, one: u32) -> vec4<u32> {
    return chosen(which, vec4(other * 0x01010101u), vec4(one * 0x01010101u));
}

/// Whole bytes of ones where bit `i` of a byte is set.
fn whole_bytes(code: vec4<u32>, i: u32) -> vec4<u32> {
    return ((code >> vec4(i)) & vec4(0x01010101u)) * 255u;
}

fn from_codes(code: vec4<u32>) -> vec4<u32> {
    let first = whole_bytes(code, 0u);
    let second = whole_bytes(code, 1u);
    let third = whole_bytes(code, 2u);
    let a = chosen(second, byte_of(first, 0x81u, 0x98u), byte_of(first, 0xadu, 0xbfu));
    let b = chosen(second, byte_of(first, 0xcfu, 0xddu), byte_of(first, 0xeau, 0xf6u));
    let c = chosen(second, byte_of(first, 0x01u, 0x0du), byte_of(first, 0x19u, 0x26u));
    let d = chosen(second, byte_of(first, 0x35u, 0x45u), byte_of(first, 0x59u, 0x71u));
    return chosen(whole_bytes(code, 3u), chosen(third, a, b), chosen(third, c, d));
}
