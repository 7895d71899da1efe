// lib/four_rows_floats.wgsl — the products of four neighbouring rows of F32 with one token.
//
// Needs from the kernel:  params (rows, units), override WG: u32; x: array<vec4<f32>>; done(row, lane, sums)
// Gives:                  multiply(first, lane): calls done for the four rows from `first` on; ROWS = 4
// Uses:                   lib/reads.wgsl, lib/reduce4.wgsl
//
// As lib/four_rows.wgsl, but a lane has 16 columns at a time: 32 of four rows are 128 registers of weights, and the
// compiler brings as many as it can at once; then a SIMD holds six subgroups of 64 lanes, with 16 more than eight.

const ROWS: u32 = 4u;

struct Half {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn half_dot(half: u32, inputs: Half) -> f32 {
    let at = 4u * half;
    var sums = bitcast<vec4<f32>>(read_quants(at)) * inputs.a;
    sums = fma(bitcast<vec4<f32>>(read_quants(at + 1u)), inputs.b, sums);
    sums = fma(bitcast<vec4<f32>>(read_quants(at + 2u)), inputs.c, sums);
    sums = fma(bitcast<vec4<f32>>(read_quants(at + 3u)), inputs.d, sums);
    return (sums.x + sums.y) + (sums.z + sums.w);
}

fn multiply(first: u32, lane: u32) {
    let last = params.rows - 1u;
    let halves = 2u * params.units;
    let row0 = first * halves;
    let row1 = min(first + 1u, last) * halves;
    let row2 = min(first + 2u, last) * halves;
    let row3 = min(first + 3u, last) * halves;
    var sums = vec4(0.0);
    for (var half = lane; half < halves; half += WG) {
        let part = Half(x[4u * half], x[4u * half + 1u], x[4u * half + 2u], x[4u * half + 3u]);
        sums.x += half_dot(row0 + half, part);
        sums.y += half_dot(row1 + half, part);
        sums.z += half_dot(row2 + half, part);
        sums.w += half_dot(row3 + half, part);
    }
    done(first, lane, reduce_sum4(lane, sums));
}
