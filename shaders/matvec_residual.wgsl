// matvec_residual — y[0, r] += sum_k w[r, k] x[0, k], and what the next norm needs of y: times its gain, and squared; one token
//
//   binding  name     access   type       shape            unit
//   0        params   read     Params
//   1        x        read     vec4<f32>  [1, K/4]         activations
//   2        quants   read     vec4<u32>  [rows, by type]  weights of this part
//   3        scales   read     u32        [rows, by type]  their scales
//   4        gain     read     f32        [M]              of the norm that comes next
//   5        y        write    f32        [1, M]           the residual stream
//   6        yn       write    f32        [1, M]           y times gain
//   7        squares  write    f32        [partials]       y squared, summed over the rows of a set
//
//   grid:      [ceil(rows/(ROWS sets)), beyond 65535 in y, 1] workgroups, ROWS rows for each set of lanes
//   requires:  K a multiple of 32
//   uses:      as matvec, without lib/epilogue.wgsl
//   twin:      src/reference/matmul.rs
//
// Whoever owns the residual writes the next input: the norm costs no dispatch of its own.

struct Params {
    rows: u32,     // of this part
    row0: u32,     // where the part starts in the whole matrix
    units: u32,    // K/32
    grid_x: u32,
    lanes: u32,    // of a set
    partial0: u32, // where this part's partial sums start
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read> gain: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> yn: array<f32>;
@group(0) @binding(7) var<storage, read_write> squares: array<f32>;

override WG: u32 = 64u;

/// Adds to one element; its square.
fn add(row: u32, sum: f32) -> f32 {
    if row >= params.rows {
        return 0.0;
    }
    let at = params.row0 + row;
    let value = y[at] + sum;
    y[at] = value;
    yn[at] = value * gain[at];
    return value * value;
}

/// Of the rows that the first lane of a set has finished.
var<private> square: f32;

fn done(row: u32, lane: u32, sums: vec4<f32>) {
    if lane == 0u {
        let near = add(row, sums.x) + add(row + 1u, sums.y);
        let far = add(row + 2u, sums.z) + add(row + 3u, sums.w);
        square += near + far;
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = sets() * (group.x + group.y * params.grid_x);
    if ROWS * first >= params.rows {
        return;
    }
    square = 0.0;
    multiply(ROWS * first, lane);
    let set_lanes = WG / sets();
    let partial = first + lane / set_lanes;
    if lane % set_lanes == 0u && ROWS * partial < params.rows {
        squares[params.partial0 + partial] = square;
    }
}
