// lib/q6_k.wgsl — weights of type Q6_K: d s (q - 32); 21 words of scales for eight units: s in bytes for each 16 weights, d, then the upper two bits of each unit
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let at = unit / 8u * 21u;
    let d = unpack2x16float(scales[at + 4u]).x;
    let bytes = signed_bytes(scales[at + unit % 8u / 2u]);
    let s = d * select(bytes.xy, bytes.zw, unit % 2u == 1u);
    let upper = at + 5u + 2u * (unit % 8u);
    let pairs = block_scaled(block_of_pairs(vec2(scales[upper], scales[upper + 1u])), 16.0, -32.0);
    let q = block_sum(block_of_nibbles(quants[unit]), pairs);
    return block_scaled_by_halves(q, s, vec2(0.0));
}
