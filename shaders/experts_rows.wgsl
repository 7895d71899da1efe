// experts_rows — y[t, s, r] = epilogue(w[e M + r] x[t] (+ bias[e M + r])) with e the expert s of token t, or of x[t, s]; the
//                tokens of one pass by their experts, for software drivers
//
//   binding  name    access   type       shape              unit
//   0        params  read     Params
//   1        x       read     vec4<f32>  [T, C/4]           activations of C columns, or [T, K, C/4]
//   2        groups  read     u32        [tiles, 2 + TILE]  choices by their experts, of group_experts
//   3        quants  read     vec4<u32>  [rows, by type]    weights of this part of all experts' rows
//   4        scales  read     u32        [rows, by type]    their scales
//   5        bias    read     f32        [E M] or [1]       added where has_bias
//   6        y       write    f32        [T, K, y_stride]   activations
//
//   grid:      [ceil(M/ROWS), tiles, 1] workgroups, ROWS rows of an expert x 8 of its choices; or fewer in a line, of rows
//              from from_row on
//   requires:  C a multiple of 32; ROWS and M even, or no gate; TILE = 8
//   uses:      lib/block.wgsl, lib/inputs.wgsl, lib/reads.wgsl, lib/epilogue.wgsl, lib/grouped.wgsl, one lib/<type>.wgsl and
//              what that uses
//   twin:      src/reference/experts.rs
//
// Lanes share out the columns. A unit of eight rows of x is read once for ROWS rows of weights, and a unit of these is
// unpacked once for eight rows of x: there reading is what costs. Sums wait in workgroup memory, each lane's own.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> groups: array<u32>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

override WG: u32 = 8u;
override ROWS: u32 = 32u;

/// [ROWS, 2, WG]: of each lane, the sums of a row for the first four choices and for the last.
var<workgroup> sum_scratch: array<vec4<f32>, 2u * ROWS * WG>;

/// Where the row of x begins that the choice number i of a tile reads, or the last one.
fn begins(tile: u32, i: u32, last: u32) -> u32 {
    return input_at(choice_at(tile, min(i, last))) * params.units;
}

/// What all lanes have found for a row and a choice.
fn total(row: u32, choice: u32) -> f32 {
    let at = (2u * row + choice / 4u) * WG;
    var sum = 0.0;
    for (var lane = 0u; lane < WG; lane++) {
        sum += sum_scratch[at + lane][choice % 4u];
    }
    return sum;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_at(group.y);
    let start = tile.expert * params.each;
    // Of the workgroup's rows those of this part.
    let from_row = params.from_row + ROWS * group.x;
    let begin = max(start + from_row, params.row0);
    let end = min(start + min(from_row + ROWS, params.each), params.row0 + params.rows);
    if tile.count == 0u || begin >= end {
        return;
    }
    let rows = end - begin;
    let first = (begin - params.row0) * params.units;
    for (var i = 0u; i < 2u * rows; i++) {
        sum_scratch[i * WG + lane] = vec4(0.0);
    }
    let last = tile.count - 1u;
    let at0 = begins(group.y, 0u, last);
    let at1 = begins(group.y, 1u, last);
    let at2 = begins(group.y, 2u, last);
    let at3 = begins(group.y, 3u, last);
    let at4 = begins(group.y, 4u, last);
    let at5 = begins(group.y, 5u, last);
    let at6 = begins(group.y, 6u, last);
    let at7 = begins(group.y, 7u, last);
    // One of the two loops has nothing to do. A software driver goes through all that an if leaves out.
    let few = select(0u, params.units, tile.count <= 4u);
    for (var unit = lane; unit < few; unit += WG) {
        let x0 = inputs(at0 + unit);
        let x1 = inputs(at1 + unit);
        let x2 = inputs(at2 + unit);
        let x3 = inputs(at3 + unit);
        for (var row = 0u; row < rows; row++) {
            let w = weights(first + row * params.units + unit);
            sum_scratch[2u * row * WG + lane] +=
                vec4(block_dot(w, x0), block_dot(w, x1), block_dot(w, x2), block_dot(w, x3));
        }
    }
    for (var unit = few + lane; unit < params.units; unit += WG) {
        let x0 = inputs(at0 + unit);
        let x1 = inputs(at1 + unit);
        let x2 = inputs(at2 + unit);
        let x3 = inputs(at3 + unit);
        let x4 = inputs(at4 + unit);
        let x5 = inputs(at5 + unit);
        let x6 = inputs(at6 + unit);
        let x7 = inputs(at7 + unit);
        for (var row = 0u; row < rows; row++) {
            let w = weights(first + row * params.units + unit);
            let at = 2u * row * WG + lane;
            sum_scratch[at] +=
                vec4(block_dot(w, x0), block_dot(w, x1), block_dot(w, x2), block_dot(w, x3));
            sum_scratch[at + WG] +=
                vec4(block_dot(w, x4), block_dot(w, x5), block_dot(w, x6), block_dot(w, x7));
        }
    }
    workgroupBarrier();
    let pairs = (rows + 1u) / 2u;
    for (var i = lane; i < pairs * tile.count; i += WG) {
        let row = 2u * (i / tile.count);
        let choice = i % tile.count;
        // A row that is not there is dropped.
        let even = total(row, choice);
        let odd = total(min(row + 1u, rows - 1u), choice);
        deliver(choice_at(group.y, choice), tile.expert, begin - start + row, even, odd);
    }
}
