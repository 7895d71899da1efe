// lib/f32.wgsl — weights of type F32: as they are; no scales
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl

fn numbers(unit: u32) -> Block {
    let at = 8u * unit;
    return Block(
        bitcast<vec4<f32>>(read_quants(at)), bitcast<vec4<f32>>(read_quants(at + 1u)),
        bitcast<vec4<f32>>(read_quants(at + 2u)), bitcast<vec4<f32>>(read_quants(at + 3u)),
        bitcast<vec4<f32>>(read_quants(at + 4u)), bitcast<vec4<f32>>(read_quants(at + 5u)),
        bitcast<vec4<f32>>(read_quants(at + 6u)), bitcast<vec4<f32>>(read_quants(at + 7u)),
    );
}

fn scaling(unit: u32) -> Scaling {
    return Scaling(vec2(1.0), vec2(0.0));
}
