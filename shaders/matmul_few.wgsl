// matmul_few — y[t, r] = sum_k w[r, k] x[t, k] (+ bias[r]), then the epilogue; one token each of a few streams, for software
//              drivers
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        frame   read     u32        [4]              (n), tokens
//   2        x       read     vec4<f32>  [T, K/4]         activations
//   3        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   4        scales  read     u32        [rows, by type]  their scales
//   5        bias    read     f32        [M] or [1]       added where has_bias
//   6        y       write    f32        [T, M]           activations ([T, M/2] with a gate)
//
//   grid:      [ceil(rows/ROWS), ceil(T/COLUMNS), beyond 65535 in z] workgroups, ROWS rows x COLUMNS tokens
//   requires:  K a multiple of 32; with a gate an even number of rows; ROWS a multiple of 4; COLUMNS 1, 2, 4 or 8, WG lanes at
//              least half as many; a workgroup is one subgroup
//   uses:      lib/block.wgsl, lib/inputs.wgsl, lib/reads.wgsl, lib/epilogue.wgsl, one lib/<type>.wgsl and what that uses,
//              lib/plain.wgsl or lib/nibbles.wgsl, lib/reduce_subgroup.wgsl
//   twin:      src/reference/matmul.rs
//
// Lanes share out the units of a row, as with one token; each is unpacked once for all tokens. A token's sums are added
// up in an order that neither COLUMNS nor the others decide: its bits are the same in whatever company.

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // K/32
    y_stride: u32,
    has_bias: u32,
    grid_x: u32,
    lanes: u32,     // of one token's
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

override WG: u32 = 8u;
override ROWS: u32 = 48u;
override COLUMNS: u32 = 8u;

/// A number for each of up to eight tokens.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

var<workgroup> sum_scratch: array<Eight, ROWS * WG>;

/// A unit's activations of one token; those of a token that is not there are never looked at.
fn column(first: u32, i: u32, unit: u32) -> Prepared {
    return prepared(inputs(min(first + i, frame[1] - 1u) * params.units + unit));
}

fn one_of(v: Eight, i: u32) -> f32 {
    return select(v.a, v.b, i >= 4u)[i % 4u];
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = ROWS * (group.x + group.z * params.grid_x);
    let tokens = frame[1];
    let first = COLUMNS * group.y;
    if first_row >= params.rows || first >= tokens {
        return;
    }
    let count = min(ROWS, params.rows - first_row);
    for (var r = 0u; r < count; r++) {
        sum_scratch[r * WG + lane] = Eight(vec4(0.0), vec4(0.0));
    }
    for (var unit = lane; unit < params.units; unit += WG) {
        let c0 = column(first, 0u, unit);
        var c1 = c0;
        var c2 = c0;
        var c3 = c0;
        var c4 = c0;
        var c5 = c0;
        var c6 = c0;
        var c7 = c0;
        if COLUMNS > 1u {
            c1 = column(first, 1u, unit);
        }
        if COLUMNS > 2u {
            c2 = column(first, 2u, unit);
            c3 = column(first, 3u, unit);
        }
        if COLUMNS > 4u {
            c4 = column(first, 4u, unit);
            c5 = column(first, 5u, unit);
            c6 = column(first, 6u, unit);
            c7 = column(first, 7u, unit);
        }
        for (var r = 0u; r < count; r++) {
            let w = unpacked((first_row + r) * params.units + unit);
            var dots = Eight(vec4(unpacked_dot(w, c0), 0.0, 0.0, 0.0), vec4(0.0));
            if COLUMNS > 1u {
                dots.a.y = unpacked_dot(w, c1);
            }
            if COLUMNS > 2u {
                dots.a.z = unpacked_dot(w, c2);
                dots.a.w = unpacked_dot(w, c3);
            }
            if COLUMNS > 4u {
                dots.b = vec4(
                    unpacked_dot(w, c4), unpacked_dot(w, c5), unpacked_dot(w, c6), unpacked_dot(w, c7),
                );
            }
            let sums = sum_scratch[r * WG + lane];
            sum_scratch[r * WG + lane] = Eight(sums.a + dots.a, sums.b + dots.b);
        }
    }
    for (var r = 0u; r < count; r++) {
        let sums = sum_scratch[r * WG + lane];
        var all = Eight(reduce_sum4(lane, sums.a), sums.b);
        if COLUMNS > 4u {
            all.b = reduce_sum4(lane, sums.b);
        }
        sum_scratch[r * WG + lane] = all;
    }
    // Every lane has the sums of all: tokens are shared out among them.
    for (var i = lane; i < min(COLUMNS, tokens - first); i += WG) {
        for (var r = 0u; r < count; r += 4u) {
            // Rows that are not there are dropped by the epilogue.
            let at = r * WG + lane;
            let end = (count - 1u) * WG + lane;
            finish(first + i, first_row + r, vec4(
                one_of(sum_scratch[at], i), one_of(sum_scratch[min(at + WG, end)], i),
                one_of(sum_scratch[min(at + 2u * WG, end)], i), one_of(sum_scratch[min(at + 3u * WG, end)], i),
            ));
        }
    }
}
