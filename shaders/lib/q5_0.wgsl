// lib/q5_0.wgsl — weights of type Q5_0: d (q - 16); three words of scales for two units: their d, the fifth bits of each
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let at = unit / 2u * 3u;
    let odd = unit % 2u;
    let pair = unpack2x16float(scales[at]);
    let d = select(pair.x, pair.y, odd == 1u);
    let q = block_sum(block_of_nibbles(quants[unit]), block_of_bits(scales[at + 1u + odd], 16u));
    return block_scaled(q, d, -16.0 * d);
}
