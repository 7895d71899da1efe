// lib/plain.wgsl — the product of a unit of any type: unpacked, multiplied, summed, then scaled.
//
// Gives:  prepared(x) -> what unit_dot wants of 32 activations
//         unit_dot(unit, x) -> their product with the weights of a unit
// Uses:   lib/block.wgsl, one lib/<type>.wgsl

struct Prepared {
    x: Block,
    sums: vec2<f32>,
}

fn prepared(x: Block) -> Prepared {
    return Prepared(x, block_sums(x));
}

fn unit_dot(unit: u32, x: Prepared) -> f32 {
    let by = scaling(unit);
    return dot(by.d, block_dots(numbers(unit), x.x)) + dot(by.m, x.sums);
}
