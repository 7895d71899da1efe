// lib/inputs.wgsl — 32 neighbouring activations.
//
// Needs from the kernel:  x: array<vec4<f32>>
// Gives:                  inputs(unit) -> those of a unit, counted over all rows of x
// Uses:                   lib/block.wgsl

fn inputs(unit: u32) -> Block {
    let at = 8u * unit;
    return Block(
        x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u],
    );
}
