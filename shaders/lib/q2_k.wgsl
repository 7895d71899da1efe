// lib/q2_k.wgsl — weights of type Q2_K: d s q - dmin t; five words of scales for eight units: a byte (s low, t high) for each 16 weights, then d, dmin
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn weights(unit: u32) -> Block {
    let at = unit / 8u * 5u;
    let bytes = scales[at + unit % 8u / 2u] >> (16u * (unit % 2u));
    let st = vec4<f32>((vec4(bytes) >> vec4(0u, 8u, 4u, 12u)) & vec4(15u));
    let d = unpack2x16float(scales[at + 4u]);
    let words = quants[unit / 2u];
    let q = block_of_pairs(select(words.xy, words.zw, unit % 2u == 1u));
    return block_scaled_by_halves(q, d.x * st.xy, -d.y * st.zw);
}
