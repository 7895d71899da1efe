// matvec_residual — y[0, r] += sum_k w[r, k] x[0, k] (+ bias[r], with BIASED), and what the next norm needs of y: times its
//                   gain, and squared; one token
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        x       read     vec4<f32>  [1, K/4]         activations
//   2        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   3        scales  read     u32        [rows, by type]  their scales
//   4        gain    read     f32        [M] or [2, M]    of the norm that comes next; with BIASED the bias after it
//   5        y       write    f32        [1, M]           the residual stream
//   6        yn      write    f32        [1, M]           y times gain
//   7        sums    write    f32        [partials]       y squared, summed over the rows of a set; with CENTRED
//                                                         [3 partials]: number of rows, mean of y, squares of what is off
//                                                         it, summed
//
//   grid:      [ceil(rows/(ROWS sets)), beyond 65535 in y, 1] workgroups, ROWS rows for each set of lanes
//   requires:  K a multiple of 32
//   uses:      as matvec, without lib/epilogue.wgsl, and lib/folded.wgsl
//   twin:      src/reference/matmul.rs
//
// Whoever owns the residual writes the next input: the norm costs no dispatch of its own. With BESIDE another block still
// reads the stream as it was: yn is that times gain, and its sums stay as they are.

struct Params {
    rows: u32,     // of this part
    row0: u32,     // where the part starts in the whole matrix
    units: u32,    // K/32
    grid_x: u32,
    lanes: u32,    // of a set
    partial0: u32, // where this part's partial sums start
    all_rows: u32, // M
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read> gain: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> yn: array<f32>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

override WG: u32 = 64u;

/// Adds to one element; what it is then.
fn put(row: u32, sum: f32) -> f32 {
    let at = params.row0 + row;
    let before = y[at];
    var added = sum;
    if BIASED {
        added += gain[params.all_rows + at];
    }
    let value = before + added;
    y[at] = value;
    yn[at] = select(value, before, BESIDE) * gain[at];
    return value;
}

/// Adds to one element; its square.
fn squared(row: u32, sum: f32) -> f32 {
    if row >= params.rows {
        return 0.0;
    }
    let value = put(row, sum);
    return value * value;
}

/// Adds to one element; what it is then, or nothing.
fn plain(row: u32, sum: f32) -> f32 {
    if row >= params.rows {
        return 0.0;
    }
    return put(row, sum);
}

/// Of the rows that the first lane of a set has finished.
var<private> square: f32;
var<private> number: f32;
var<private> mean: f32;

/// Adds to four elements; their mean, and the squares of what is off it, join those before.
fn centred(row: u32, products: vec4<f32>) {
    let values = vec4(
        plain(row, products.x), plain(row + 1u, products.y), plain(row + 2u, products.z), plain(row + 3u, products.w),
    );
    let count = min(4u, max(params.rows, row) - row);
    if count == 0u {
        return;
    }
    let here = f32(count);
    let near = (values.x + values.y + values.z + values.w) / here;
    let off = select(vec4(0.0), values - near, vec4(0u, 1u, 2u, 3u) < vec4(count));
    let step = near - mean;
    let all = number + here;
    square += dot(off, off) + step * step * (number * here / all);
    mean += step * (here / all);
    number = all;
}

fn done(row: u32, lane: u32, products: vec4<f32>) {
    if lane == 0u {
        if CENTRED {
            centred(row, products);
        } else {
            let near = squared(row, products.x) + squared(row + 1u, products.y);
            let far = squared(row + 2u, products.z) + squared(row + 3u, products.w);
            square += near + far;
        }
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
    number = 0.0;
    mean = 0.0;
    multiply(ROWS * first, lane);
    if BESIDE {
        return;
    }
    let set_lanes = WG / sets();
    let partial = first + lane / set_lanes;
    if lane % set_lanes == 0u && ROWS * partial < params.rows {
        let at = params.partial0 + partial;
        if CENTRED {
            sums[3u * at] = number;
            sums[3u * at + 1u] = mean;
            sums[3u * at + 2u] = square;
        } else {
            sums[at] = square;
        }
    }
}
