// lib/four_rows.wgsl — the products of neighbouring rows with one token, four at a time.
//
// Needs from the kernel:  params (rows, units, lanes), override WG: u32; done(row, lane, sums)
// Gives:                  multiply(first, lane): calls done for the four rows of each set of lanes, from `first` on;
//                         sets() -> how many a workgroup has; ROWS = 4, of a set
// Uses:                   lib/block.wgsl, lib/inputs.wgsl, one lib/<type>.wgsl and what multiplies it (lib/plain.wgsl, lib/nibbles.wgsl,
//                         lib/int8.wgsl); lib/reduce4.wgsl, or lib/reduce_subgroup.wgsl
//
// The lanes of a set share out the units of a row: so many that few of them have nothing to do at the end of it. x is
// read once for four rows. Rows beyond the last are the last again.

const ROWS: u32 = 4u;

fn sets() -> u32 {
    return WG / params.lanes;
}

fn multiply(first: u32, lane: u32) {
    let last = params.rows - 1u;
    let own = lane % params.lanes;
    let begin = first + ROWS * (lane / params.lanes);
    let row0 = min(begin, last) * params.units;
    let row1 = min(begin + 1u, last) * params.units;
    let row2 = min(begin + 2u, last) * params.units;
    let row3 = min(begin + 3u, last) * params.units;
    var sums = vec4(0.0);
    for (var unit = own; unit < params.units; unit += params.lanes) {
        let part = prepared(inputs(unit));
        // One after the other: what is in flight for all four at once takes more registers.
        sums.x += unit_dot(row0 + unit, part);
        sums.y += unit_dot(row1 + unit, part);
        sums.z += unit_dot(row2 + unit, part);
        sums.w += unit_dot(row3 + unit, part);
    }
    done(begin, own, reduce_set4(lane, params.lanes, sums));
}
