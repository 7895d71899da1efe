// lib/bf16.wgsl — weights of type BF16: the upper halves of f32, in pairs; no scales
//
// Needs:                  read_quants(i) -> vec4<u32>, read_scales(i) -> u32   (as src/format/repack.rs lays them out)
// Gives:                  numbers(unit) -> 32 numbers q; scaling(unit) -> d, m of the first 16, then of the last:
//                         a weight is d q + m
// Uses:                   lib/block.wgsl

fn widened(pair: vec2<u32>) -> vec4<f32> {
    let low = pair << vec2(16u);
    let high = pair & vec2(0xffff0000u);
    return bitcast<vec4<f32>>(vec4(low.x, high.x, low.y, high.y));
}

fn numbers(unit: u32) -> Block {
    let p = read_quants(4u * unit);
    let q = read_quants(4u * unit + 1u);
    let r = read_quants(4u * unit + 2u);
    let s = read_quants(4u * unit + 3u);
    return Block(
        widened(p.xy), widened(p.zw), widened(q.xy), widened(q.zw),
        widened(r.xy), widened(r.zw), widened(s.xy), widened(s.zw),
    );
}

fn scaling(unit: u32) -> Scaling {
    return Scaling(vec2(1.0), vec2(0.0));
}
