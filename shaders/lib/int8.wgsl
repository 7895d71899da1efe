// lib/int8.wgsl — the product of a unit with activations that are rounded to bytes.
//
// Gives:  prepared(x) -> what unit_dot wants of 32 activations
//         unit_dot(unit, x) -> their product with the weights of a unit
//         unpacked(unit), unpacked_dot(unpacked(unit), x) -> the same in two steps, for one unit and several x
// Uses:   lib/block.wgsl, one lib/<type>.wgsl of integers, which gives words(unit)
//
// An activation becomes scale q with scale = max |x| / 127 over its 32 neighbours, so it is off by scale / 2 at most.
// Four products are one instruction where a GPU has dot4I8Packed. Offsets of weights meet the sum of what was rounded:
// the error is that of the weights' own size, not of their offset's.

struct Prepared {
    low: vec4<u32>,
    high: vec4<u32>,
    scale: f32,
    sums: vec2<f32>,
}

/// Four numbers of at most 127 either way, rounded, as the bytes of a word. Added to 2^23 + 128, a number's whole part is
/// in the lowest bits of the float: nothing has to be converted, and what is above them is shifted out.
fn rounded_bytes(v: vec4<f32>, by: f32) -> u32 {
    let u = bitcast<vec4<u32>>(fma(v, vec4(by), vec4(8388736.0)));
    return ((u.x & 255u) | (u.y << 8u) | (u.z << 16u) | (u.w << 24u)) ^ 0x80808080u;
}

fn bytes_dot(u: vec4<u32>, v: vec4<u32>) -> i32 {
    return dot4I8Packed(u.x, v.x) + dot4I8Packed(u.y, v.y) + dot4I8Packed(u.z, v.z) + dot4I8Packed(u.w, v.w);
}

fn prepared(x: Block) -> Prepared {
    let near = max(max(abs(x.a), abs(x.b)), max(abs(x.c), abs(x.d)));
    let far = max(max(abs(x.e), abs(x.f)), max(abs(x.g), abs(x.h)));
    let each = max(near, far);
    let most = max(max(each.x, each.y), max(each.z, each.w));
    // What is smaller has an inverse that is no number.
    let by = select(0.0, 127.0 / most, most > 1e-30);
    let low = vec4(
        rounded_bytes(x.a, by), rounded_bytes(x.b, by), rounded_bytes(x.c, by), rounded_bytes(x.d, by),
    );
    let high = vec4(
        rounded_bytes(x.e, by), rounded_bytes(x.f, by), rounded_bytes(x.g, by), rounded_bytes(x.h, by),
    );
    let ones = vec4(0x01010101u);
    let sums = vec2<f32>(vec2(bytes_dot(low, ones), bytes_dot(high, ones)));
    return Prepared(low, high, most / 127.0, sums);
}

struct Unpacked {
    q: Words,
    by: Scaling,
}

fn unpacked(unit: u32) -> Unpacked {
    return Unpacked(words(unit), scaling(unit));
}

fn unpacked_dot(w: Unpacked, x: Prepared) -> f32 {
    let dots = vec2<f32>(vec2(bytes_dot(w.q.low, x.low), bytes_dot(w.q.high, x.high)));
    return x.scale * (dot(w.by.d, dots) + dot(w.by.m, x.sums));
}

fn unit_dot(unit: u32, x: Prepared) -> f32 {
    return unpacked_dot(unpacked(unit), x);
}
