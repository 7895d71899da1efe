// lib/four_rows.wgsl — the products of neighbouring rows with one token, four at a time.
//
// Needs from the kernel:  params (rows, units), override WG: u32; done(row, lane, sums)
// Gives:                  multiply(first, lane): calls done for the four rows from `first` on; ROWS = 4
// Uses:                   lib/block.wgsl, lib/inputs.wgsl, one lib/<type>.wgsl and what multiplies it (lib/plain.wgsl, lib/nibbles.wgsl,
//                         lib/int8.wgsl); lib/reduce4.wgsl, or lib/reduce_subgroup.wgsl
//
// The lanes share out the units of a row; x is read once for four rows. Rows beyond the last are the last again.

const ROWS: u32 = 4u;

fn multiply(first: u32, lane: u32) {
    let last = params.rows - 1u;
    let row0 = first * params.units;
    let row1 = min(first + 1u, last) * params.units;
    let row2 = min(first + 2u, last) * params.units;
    let row3 = min(first + 3u, last) * params.units;
    var sums = vec4(0.0);
    for (var unit = lane; unit < params.units; unit += WG) {
        let part = prepared(inputs(unit));
        // One after the other: what is in flight for all four at once takes more registers.
        sums.x += unit_dot(row0 + unit, part);
        sums.y += unit_dot(row1 + unit, part);
        sums.z += unit_dot(row2 + unit, part);
        sums.w += unit_dot(row3 + unit, part);
    }
    done(first, lane, reduce_sum4(lane, sums));
}
