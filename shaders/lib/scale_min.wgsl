// lib/scale_min.wgsl — the six-bit scales and minima of Q4_K and Q5_K.
//
// Needs from the kernel:  read_scales(i) -> u32
// Gives:                  scale_min(at, part) -> d s and dmin t of part 0 to 7, from the four words at `at`:
//                         d and dmin, then twelve bytes
// Uses:                   lib/unpack_half.wgsl

fn scale_min(at: u32, part: u32) -> vec2<f32> {
    let d = unpack_half2(read_scales(at));
    let shift = part % 4u * 8u;
    let first = read_scales(at + 1u) >> shift;
    let second = read_scales(at + 2u) >> shift;
    let third = read_scales(at + 3u) >> shift;
    let early = vec2(first & 63u, second & 63u);
    let late = vec2((third & 15u) | ((first >> 2u) & 48u), ((third >> 4u) & 15u) | ((second >> 2u) & 48u));
    return d * vec2<f32>(select(late, early, part < 4u));
}
