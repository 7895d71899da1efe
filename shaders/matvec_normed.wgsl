// matvec_normed — y[0, r] = sum_k w[r, k] xn[0, k] / rms (+ bias[r]), then the epilogue; one token,
//                 rms = sqrt(mean of the squares + eps)
//
//   binding  name     access   type       shape            unit
//   0        params   read     Params
//   1        x        read     vec4<f32>  [1, K/4]         xn: activations times the norm's gain
//   2        squares  read     f32        [>= partials]    partial sums of the squares of the activations
//   3        quants   read     vec4<u32>  [rows, by type]  weights of this part
//   4        scales   read     u32        [rows, by type]  their scales
//   5        bias     read     f32        [M] or [1]       added where has_bias
//   6        y        write    f32        [1, M]           activations ([1, M/2] with a gate)
//
//   grid:      [ceil(rows/(ROWS sets)), beyond 65535 in y, 1] workgroups, ROWS rows for each set of lanes
//   requires:  K a multiple of 32; with a gate an even number of rows
//   uses:      as matvec
//   twin:      src/reference/norm.rs, then src/reference/matmul.rs
//
// The norm is one number, so it multiplies the product instead of every input.

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // K/32
    y_stride: u32,
    has_bias: u32,
    grid_x: u32,
    lanes: u32,     // of a set
    partials: u32,  // how many of squares there are
    cols: f32,      // elements that the mean is of
    eps: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> squares: array<f32>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;

fn done(row: u32, lane: u32, sums: vec4<f32>) {
    let squares = noted(); // by all lanes
    if lane == 0u {
        finish(0u, row, sums / sqrt(squares / params.cols + params.eps));
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = ROWS * sets() * (group.x + group.y * params.grid_x);
    if row >= params.rows {
        return;
    }
    var square = 0.0;
    for (var i = lane; i < params.partials; i += WG) {
        square += squares[i];
    }
    note(lane, square);
    multiply(row, lane);
}
