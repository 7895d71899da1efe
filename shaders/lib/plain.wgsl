// lib/plain.wgsl — the product of a unit of any type: unpacked, multiplied, summed, then scaled.
//
// Gives:  prepared(x) -> what unit_dot wants of 32 activations
//         unit_dot(unit, x) -> their product with the weights of a unit
//         unpacked(unit), unpacked_dot(unpacked(unit), x) -> the same in two steps, for one unit and several x
// Uses:   lib/block.wgsl, one lib/<type>.wgsl

struct Prepared {
    x: Block,
    sums: vec2<f32>,
}

fn prepared(x: Block) -> Prepared {
    return Prepared(x, block_sums(x));
}

struct Unpacked {
    q: Block,
    by: Scaling,
}

fn unpacked(unit: u32) -> Unpacked {
    return Unpacked(numbers(unit), scaling(unit));
}

fn unpacked_dot(w: Unpacked, x: Prepared) -> f32 {
    return dot(w.by.d, block_dots(w.q, x.x)) + dot(w.by.m, x.sums);
}

fn unit_dot(unit: u32, x: Prepared) -> f32 {
    return unpacked_dot(unpacked(unit), x);
}
