// matmul_columns — y[t, r] = sum_k w[r, k] x[t, k] (+ bias[r]), then the epilogue; the tokens of one pass, for software drivers
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
//   grid:      [ceil(rows/ROWS), ceil(T/(8 WG)), beyond 65535 in z] workgroups, ROWS rows x 8 WG tokens
//   requires:  K a multiple of 32; with a gate an even number of rows; ROWS a multiple of 4; a workgroup is one subgroup
//   uses:      lib/block.wgsl, lib/inputs.wgsl, lib/epilogue.wgsl, one lib/<type>.wgsl and what that uses,
//              lib/reads_broadcast.wgsl
//   twin:      src/reference/matmul.rs
//
// A lane owns eight tokens, so that nothing is added up across lanes. A unit of activations is read once for ROWS
// rows, a unit of weights once for all tokens: there reading is what costs. Sums wait in workgroup memory, each
// lane's own.

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

/// The sums of a lane's eight tokens.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

var<workgroup> sum_scratch: array<Eight, ROWS * WG>;

fn column(token: u32, unit: u32) -> Block {
    return inputs(token * params.units + unit);
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
    if first_row >= params.rows || 8u * WG * group.y >= tokens {
        return;
    }
    reads_lane = lane;
    // Lanes and tokens that are not there are the last again: the lanes of a subgroup stay together.
    let last = tokens - 1u;
    let first = 8u * WG * group.y + lane;
    let count = min(ROWS, params.rows - first_row);
    for (var r = 0u; r < count; r++) {
        sum_scratch[r * WG + lane] = Eight(vec4(0.0), vec4(0.0));
    }
    for (var unit = 0u; unit < params.units; unit++) {
        let c0 = column(min(first, last), unit);
        let c1 = column(min(first + WG, last), unit);
        let c2 = column(min(first + 2u * WG, last), unit);
        let c3 = column(min(first + 3u * WG, last), unit);
        let c4 = column(min(first + 4u * WG, last), unit);
        let c5 = column(min(first + 5u * WG, last), unit);
        let c6 = column(min(first + 6u * WG, last), unit);
        let c7 = column(min(first + 7u * WG, last), unit);
        for (var r = 0u; r < count; r++) {
            let w = weights((first_row + r) * params.units + unit);
            let sums = sum_scratch[r * WG + lane];
            sum_scratch[r * WG + lane] = Eight(
                sums.a + vec4(block_dot(w, c0), block_dot(w, c1), block_dot(w, c2), block_dot(w, c3)),
                sums.b + vec4(block_dot(w, c4), block_dot(w, c5), block_dot(w, c6), block_dot(w, c7)),
            );
        }
    }
    for (var i = 0u; i < 8u && first + i * WG < tokens; i++) {
        for (var r = 0u; r < count; r += 4u) {
            // Rows that are not there are dropped by the epilogue.
            let at = r * WG + lane;
            let end = (count - 1u) * WG + lane;
            finish(first + i * WG, first_row + r, vec4(
                one_of(sum_scratch[at], i), one_of(sum_scratch[min(at + WG, end)], i),
                one_of(sum_scratch[min(at + 2u * WG, end)], i), one_of(sum_scratch[min(at + 3u * WG, end)], i),
            ));
        }
    }
}
