// lib/q4_1.wgsl — weights of type Q4_1: d q + m; a word of scales a unit: d, m
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let dm = unpack2x16float(scales[unit]);
    return block_scaled(block_of_nibbles(quants[unit]), dm.x, dm.y);
}
