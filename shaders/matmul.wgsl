// matmul — y[t, r] = sum_k w[r, k] x[t, k] (+ bias[r]), then the epilogue; the tokens of one pass
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        frame   read     u32        [4]              n: position of the first token, tokens
//   2        x       read     vec4<f32>  [T, K/4]         activations
//   3        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   4        scales  read     u32        [rows, by type]  their scales
//   5        bias    read     f32        [M] or [1]       added where has_bias
//   6        y       write    f32        [T, M]           activations ([T, M/2] with a gate)
//
//   grid:      [ceil(rows/4), ceil(T/COLUMNS), beyond 65535 in z] workgroups, 4 rows x COLUMNS tokens
//   requires:  K a multiple of 32; with a gate an even number of rows
//   uses:      lib/block.wgsl, lib/inputs.wgsl, lib/epilogue.wgsl, one lib/<type>.wgsl
//   twin:      src/reference/matmul.rs
//
// As matvec, but what is unpacked of a weight serves COLUMNS tokens.
//
// v1  eight named accumulators, unrolled: compiling took 20 s on lavapipe.
// v2  a loop over tokens, sums in workgroup memory: as fast, a sixth of the code, no work for tokens
//     that are not there.

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

override WG: u32 = 64u;
override COLUMNS: u32 = 8u;

/// Rows of weights that are multiplied at a time.
struct Rows {
    a: Block,
    b: Block,
    c: Block,
    d: Block,
}

var<workgroup> sum_scratch: array<vec4<f32>, COLUMNS * WG>;

fn dots(rows: Rows, token: u32, unit: u32) -> vec4<f32> {
    let part = inputs(token * params.units + unit);
    return vec4(
        block_dot(rows.a, part), block_dot(rows.b, part),
        block_dot(rows.c, part), block_dot(rows.d, part),
    );
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = 4u * (group.x + group.z * params.grid_x);
    let first = COLUMNS * group.y;
    let tokens = frame[1];
    if row >= params.rows || first >= tokens {
        return;
    }
    let last = params.rows - 1u;
    let row1 = min(row + 1u, last) * params.units;
    let row2 = min(row + 2u, last) * params.units;
    let row3 = min(row + 3u, last) * params.units;
    let columns = min(COLUMNS, tokens - first);

    for (var column = 0u; column < columns; column++) {
        sum_scratch[column * WG + lane] = vec4(0.0);
    }
    for (var unit = lane; unit < params.units; unit += WG) {
        let rows = Rows(
            weights(row * params.units + unit), weights(row1 + unit),
            weights(row2 + unit), weights(row3 + unit),
        );
        for (var column = 0u; column < columns; column++) {
            sum_scratch[column * WG + lane] += dots(rows, first + column, unit);
        }
    }
    workgroupBarrier();
    for (var column = lane; column < columns; column += WG) {
        var sums = vec4(0.0);
        for (var other = 0u; other < WG; other++) {
            sums += sum_scratch[column * WG + other];
        }
        finish(first + column, row, sums);
    }
}
