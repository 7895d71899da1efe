// lib/f16.wgsl — weights of type F16: half precision, in pairs; no scales, no shader-f16
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl, lib/unpack_half.wgsl

fn low_four(q: vec4<u32>) -> vec4<f32> {
    return vec4(unpack_half2(q.x), unpack_half2(q.y));
}

fn high_four(q: vec4<u32>) -> vec4<f32> {
    return vec4(unpack_half2(q.z), unpack_half2(q.w));
}

fn numbers(unit: u32) -> Block {
    let p = read_quants(4u * unit);
    let q = read_quants(4u * unit + 1u);
    let r = read_quants(4u * unit + 2u);
    let s = read_quants(4u * unit + 3u);
    return Block(
        low_four(p), high_four(p), low_four(q), high_four(q),
        low_four(r), high_four(r), low_four(s), high_four(s),
    );
}

fn scaling(unit: u32) -> Scaling {
    return Scaling(vec2(1.0), vec2(0.0));
}
