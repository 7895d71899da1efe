// lib/q4_k.wgsl — weights of type Q4_K: d s q - dmin t; four words of scales for eight units
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl, lib/scale_min.wgsl

fn weights(unit: u32) -> Block {
    let st = scale_min(unit / 8u * 4u, unit % 8u);
    return block_scaled(block_of_nibbles(quants[unit]), st.x, -st.y);
}
