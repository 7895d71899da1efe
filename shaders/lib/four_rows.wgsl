// lib/four_rows.wgsl — a lane's share of the products of four neighbouring rows with one token.
//
// Needs from the kernel:  params (rows, units), x: array<vec4<f32>>, override WG: u32;
// Gives:                  four_rows(row, lane): row is the first of four, counted within this part
// Uses:                   lib/block.wgsl, one lib/<type>.wgsl
//
// The lanes share out the units of a row; x is read once for four rows. Rows beyond the last are the last again.

fn four_rows(row: u32, lane: u32) -> vec4<f32> {
    let last = params.rows - 1u;
    let row1 = min(row + 1u, last) * params.units;
    let row2 = min(row + 2u, last) * params.units;
    let row3 = min(row + 3u, last) * params.units;
    var sums = vec4(0.0);
    for (var unit = lane; unit < params.units; unit += WG) {
        let at = 8u * unit;
        let part = Block(
            x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u],
        );
        sums.x += block_dot(weights(row * params.units + unit), part);
        sums.y += block_dot(weights(row1 + unit), part);
        sums.z += block_dot(weights(row2 + unit), part);
        sums.w += block_dot(weights(row3 + unit), part);
    }
    return sums;
}
