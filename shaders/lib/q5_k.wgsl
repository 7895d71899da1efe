// lib/q5_k.wgsl — weights of type Q5_K: d s q - dmin t; twelve words of scales for eight units: as Q4_K, then the fifth bits of each unit
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl, lib/scale_min.wgsl

fn weights(unit: u32) -> Block {
    let at = unit / 8u * 12u;
    let st = scale_min(at, unit % 8u);
    let bits = block_of_bits(scales[at + 4u + unit % 8u], 16u);
    return block_scaled(block_sum(block_of_nibbles(quants[unit]), bits), st.x, -st.y);
}
