// lib/plain.wgsl — the product of a unit of any type: unpacked, multiplied, summed, then scaled.
//
// Gives:  prepared(x) -> what numbers_dot wants of 32 activations
//         numbers_dot(unit, x) -> sums of q x, of the first 16 and of the last
// Uses:   lib/block.wgsl, one lib/<type>.wgsl

fn prepared(x: Block) -> Block {
    return x;
}

fn numbers_dot(unit: u32, x: Block) -> vec2<f32> {
    return block_dots(numbers(unit), x);
}
