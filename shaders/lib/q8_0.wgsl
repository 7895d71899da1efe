// lib/q8_0.wgsl — weights of type Q8_0: d q; the f16 scales of two units share a word
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let pair = unpack2x16float(scales[unit / 2u]);
    let d = select(pair.x, pair.y, unit % 2u == 1u);
    return block_scaled(block_of_bytes(quants[2u * unit], quants[2u * unit + 1u]), d, 0.0);
}
