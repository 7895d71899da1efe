// lib/bf16.wgsl — weights of type BF16: the upper halves of f32, in pairs; no scales
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>   (as src/format/repack.rs lays them out)
// Gives:                  weights(unit) -> the 32 weights of a unit
// Uses:                   lib/block.wgsl

fn widened(pair: vec2<u32>) -> vec4<f32> {
    let low = pair << vec2(16u);
    let high = pair & vec2(0xffff0000u);
    return bitcast<vec4<f32>>(vec4(low.x, high.x, low.y, high.y));
}

fn weights(unit: u32) -> Block {
    let p = quants[4u * unit];
    let q = quants[4u * unit + 1u];
    let r = quants[4u * unit + 2u];
    let s = quants[4u * unit + 3u];
    return Block(
        widened(p.xy), widened(p.zw), widened(q.xy), widened(q.zw),
        widened(r.xy), widened(r.zw), widened(s.xy), widened(s.zw),
    );
}
