// lib/unpack_half.wgsl — two halves as numbers; by integers where the device's own way loses the smallest.

override HALF_BY_BITS: bool = false;

fn unpack_half2(word: u32) -> vec2<f32> {
    if !HALF_BY_BITS {
        return unpack2x16float(word);
    }
    let size = vec2(word, word >> 16u) & vec2(0x7fffu);
    let tiny = bitcast<vec2<u32>>(vec2<f32>(size) * 0x1p-24);
    let other = (size << vec2(13u)) + select(vec2(0x38000000u), vec2(0x70000000u), size >= vec2(0x7c00u));
    let sign = vec2(word << 16u, word) & vec2(0x80000000u);
    return bitcast<vec2<f32>>(sign | select(other, tiny, size < vec2(0x400u)));
}
