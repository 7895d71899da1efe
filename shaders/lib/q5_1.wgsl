// lib/q5_1.wgsl — weights of type Q5_1: d q + m; two words of scales a unit: d and m, the fifth bits
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let dm = unpack2x16float(scales[2u * unit]);
    let q = block_sum(block_of_nibbles(quants[unit]), block_of_bits(scales[2u * unit + 1u], 16u));
    return block_scaled(q, dm.x, dm.y);
}
