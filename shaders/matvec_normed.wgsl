// matvec_normed — y[0, r] = sum_k w[r, k] xn[0, k] / rms (+ bias[r]), then the epilogue; one token,
//                 rms = sqrt(mean of the squares + eps); with CENTRED
//                 y[0, r] = (sum_k w[r, k] xn[0, k] - mean slope[r]) / sqrt(variance + eps) + bias[r]
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        x       read     vec4<f32>  [1, K/4]         xn: activations times the norm's gain
//   2        sums    read     f32        [>= partials]    partial sums of the squares of the activations; with CENTRED
//                                                         [>= 3 partials], of so many: number, mean, squares of what is
//                                                         off it, summed
//   3        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   4        scales  read     u32        [rows, by type]  their scales
//   5        bias    read     f32        [M] or [1]       added where has_bias; with CENTRED [2, M], then slope: the
//                                                         product of the norm's gain
//   6        y       write    f32        [1, M]           activations ([1, M/2] with a gate)
//
//   grid:      [ceil(rows/(ROWS sets)), beyond 65535 in y, 1] workgroups, ROWS rows for each set of lanes
//   requires:  K a multiple of 32; with a gate an even number of rows; where partials is 0, x is normed already: eps is 1 then
//   uses:      as matvec, and lib/folded.wgsl
//   twin:      src/reference/norm.rs, then src/reference/matmul.rs
//
// The norm is one number or two, so it changes the product instead of every input.

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // K/32
    y_stride: u32,
    has_bias: u32,
    grid_x: u32,
    lanes: u32,     // of a set
    partials: u32,  // how many there are
    cols: f32,      // elements that the mean is of
    eps: f32,
    slopes: u32,    // where slope begins in bias
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;

/// The mean of the first few activations, near which that of all is, so that little is lost where they are far from zero.
var<private> pivot: f32;

/// This lane's share of how far activations are from the pivot, and of the squares of that.
fn moments(lane: u32) -> vec2<f32> {
    pivot = select(0.0, sums[1], params.partials != 0u);
    var share = vec2(0.0);
    for (var i = lane; i < params.partials; i += WG) {
        let far = sums[3u * i + 1u] - pivot;
        let all = sums[3u * i] * far;
        share += vec2(all, fma(all, far, sums[3u * i + 2u]));
    }
    return share;
}

fn centred(row: u32, lane: u32, products: vec4<f32>) {
    let moments = noted_pair() / params.cols; // by all lanes
    if lane == 0u {
        let variance = max(moments.y - moments.x * moments.x, 0.0);
        let at = params.slopes + params.row0 + row;
        let slope = vec4(bias[at], bias[at + 1u], bias[at + 2u], bias[at + 3u]);
        finish(0u, row, (products - (pivot + moments.x) * slope) / sqrt(variance + params.eps));
    }
}

fn done(row: u32, lane: u32, products: vec4<f32>) {
    if CENTRED {
        centred(row, lane, products);
        return;
    }
    let squares = noted(); // by all lanes
    if lane == 0u {
        finish(0u, row, products / sqrt(squares / params.cols + params.eps));
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
    if CENTRED {
        note_pair(lane, moments(lane));
    } else {
        var square = 0.0;
        for (var i = lane; i < params.partials; i += WG) {
            square += sums[i];
        }
        note(lane, square);
    }
    multiply(row, lane);
}
