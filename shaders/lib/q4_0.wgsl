// lib/q4_0.wgsl — weights of type Q4_0: d (q - 8); the f16 scales of two units share a word
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let pair = unpack2x16float(scales[unit / 2u]);
    let d = select(pair.x, pair.y, unit % 2u == 1u);
    return block_scaled(block_of_nibbles(quants[unit]), d, -8.0 * d);
}
