// lib/four_rows_floats.wgsl — the products of four neighbouring rows of F32 with one token.
//
// Needs from the kernel:  params (rows, units, lanes), override WG: u32; x: array<vec4<f32>>; done(row, lane, sums)
// Gives:                  multiply(first, lane): calls done for the four rows of each set of lanes, from `first` on;
//                         sets() -> how many a workgroup has; ROWS = 4, of a set
// Uses:                   lib/reads.wgsl, lib/reduce4.wgsl
//
// As lib/four_rows.wgsl, but a lane has 16 columns at a time: 32 of four rows are 128 registers of weights, and the
// compiler brings as many as it can at once; then a SIMD holds six subgroups of 64 lanes, with 16 more than eight.

const ROWS: u32 = 4u;

fn sets() -> u32 {
    return WG / params.lanes;
}

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
    let own = lane % params.lanes;
    let begin = first + ROWS * (lane / params.lanes);
    let halves = 2u * params.units;
    let row0 = min(begin, last) * halves;
    let row1 = min(begin + 1u, last) * halves;
    let row2 = min(begin + 2u, last) * halves;
    let row3 = min(begin + 3u, last) * halves;
    var sums = vec4(0.0);
    for (var half = own; half < halves; half += params.lanes) {
        let part = Half(x[4u * half], x[4u * half + 1u], x[4u * half + 2u], x[4u * half + 3u]);
        sums.x += half_dot(row0 + half, part);
        sums.y += half_dot(row1 + half, part);
        sums.z += half_dot(row2 + half, part);
        sums.w += half_dot(row3 + half, part);
    }
    done(begin, own, reduce_set4(lane, params.lanes, sums));
}
