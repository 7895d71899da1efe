// lib/f16.wgsl — weights of type F16: half precision, in pairs; no scales, no shader-f16
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn low_four(q: vec4<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(q.x), unpack2x16float(q.y));
}

fn high_four(q: vec4<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(q.z), unpack2x16float(q.w));
}

fn weights(unit: u32) -> Block {
    let p = quants[4u * unit];
    let q = quants[4u * unit + 1u];
    let r = quants[4u * unit + 2u];
    let s = quants[4u * unit + 3u];
    return Block(
        low_four(p), high_four(p), low_four(q), high_four(q),
        low_four(r), high_four(r), low_four(s), high_four(s),
    );
}
