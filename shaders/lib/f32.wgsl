// lib/f32.wgsl — weights of type F32: as they are; no scales
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let at = 8u * unit;
    return Block(
        bitcast<vec4<f32>>(quants[at]), bitcast<vec4<f32>>(quants[at + 1u]),
        bitcast<vec4<f32>>(quants[at + 2u]), bitcast<vec4<f32>>(quants[at + 3u]),
        bitcast<vec4<f32>>(quants[at + 4u]), bitcast<vec4<f32>>(quants[at + 5u]),
        bitcast<vec4<f32>>(quants[at + 6u]), bitcast<vec4<f32>>(quants[at + 7u]),
    );
}
