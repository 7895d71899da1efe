// lib/many_rows.wgsl — the products of neighbouring rows with one token, for software drivers.
//
// Needs from the kernel:  params (rows, units), override WG: u32; done(row, lane, sums)
// Gives:                  multiply(first, lane): calls done for each four of ROWS rows from `first` on; sets() -> 1
// Uses:                   lib/block.wgsl, lib/inputs.wgsl, one lib/<type>.wgsl and what multiplies it (lib/plain.wgsl, lib/nibbles.wgsl,
//                         lib/int8.wgsl); lib/reduce_subgroup.wgsl
//
// As lib/four_rows.wgsl, but x is read once for all of ROWS: there every word that a lane reads costs it ten
// instructions, and the activations of a unit are 32 words where its weights are five. Sums wait in workgroup memory,
// each lane's own, so that the loop over rows stays a loop.

override ROWS: u32 = 48u;

fn sets() -> u32 {
    return 1u;
}

var<workgroup> sum_scratch: array<vec4<f32>, ROWS / 4u * WG>;

fn multiply(first: u32, lane: u32) {
    let last = params.rows - 1u;
    let fours = (min(ROWS, params.rows - first) + 3u) / 4u;
    for (var i = 0u; i < fours; i++) {
        sum_scratch[i * WG + lane] = vec4(0.0);
    }
    for (var unit = lane; unit < params.units; unit += WG) {
        let part = prepared(inputs(unit));
        for (var i = 0u; i < fours; i++) {
            let row = first + 4u * i;
            sum_scratch[i * WG + lane] += vec4(
                unit_dot(row * params.units + unit, part),
                unit_dot(min(row + 1u, last) * params.units + unit, part),
                unit_dot(min(row + 2u, last) * params.units + unit, part),
                unit_dot(min(row + 3u, last) * params.units + unit, part),
            );
        }
    }
    for (var i = 0u; i < fours; i++) {
        done(first + 4u * i, lane, reduce_sum4(lane, sum_scratch[i * WG + lane]));
    }
}
