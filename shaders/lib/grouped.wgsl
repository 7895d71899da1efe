// lib/grouped.wgsl — a tile of an expert's choices, and where their products go.
//
// Needs from the kernel:  params, groups: array<u32>, y: array<f32>
// Gives:                  Params, `ExpertsManyParams` of src/ops/experts_many.rs; the kernel binds it as `params`
//                         tile_at(tile) -> its expert and how many choices it has
//                         choice_at(tile, i) -> its choice number i, t K + s
//                         input_at(choice) -> the row of x that it reads
//                         deliver(choice, expert, row, even, odd): the sums of two neighbouring rows of an expert
// Uses:                   lib/epilogue.wgsl

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // C/32
    y_stride: u32,
    has_bias: u32,
    each: u32,      // M
    readers: u32,   // choices that read the same row of x: K, or 1
    tile: u32,      // TILE
    from_row: u32,  // of each expert, where this dispatch begins
}

struct Tile {
    expert: u32,
    count: u32,
}

fn tile_at(tile: u32) -> Tile {
    let at = tile * (2u + params.tile);
    return Tile(groups[at], groups[at + 1u]);
}

fn choice_at(tile: u32, i: u32) -> u32 {
    return groups[tile * (2u + params.tile) + 2u + i];
}

fn input_at(choice: u32) -> u32 {
    return choice / params.readers;
}

/// Whether a row of an expert is its own and in this part, `here` being where that would have it.
fn is_here(row: u32, here: u32) -> bool {
    // What is before the part wraps round to a large number.
    return (row < params.each) & (here < params.rows);
}

fn deliver(choice: u32, expert: u32, row: u32, even: f32, odd: f32) {
    let here = expert * params.each + row - params.row0;
    let at = choice * params.y_stride;
    if gates() {
        if is_here(row, here) {
            y[at + row / 2u] = gated(biased(here, even), biased(here + 1u, odd));
        }
        return;
    }
    if is_here(row, here) {
        y[at + row] = biased(here, even);
    }
    if is_here(row + 1u, here + 1u) {
        y[at + row + 1u] = biased(here + 1u, odd);
    }
}
