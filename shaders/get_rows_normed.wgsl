// get_rows_normed — x[0, :] = scale w[tokens[0], :], and what the next norm needs of x: times its gain, and squared; one token
//
//   binding  name     access   type       shape            unit
//   0        params   read     Params
//   1        tokens   read     u32        [T]              the first is the id
//   2        quants   read     vec4<u32>  [rows, by type]  weights of this part
//   3        scales   read     u32        [rows, by type]  their scales
//   4        gain     read     vec4<f32>  [D/4]            of the norm that comes next
//   5        x        write    vec4<f32>  [1, D/4]         the residual stream
//   6        xn       write    vec4<f32>  [1, D/4]         x times gain
//   7        sums     write    f32        [>= D/32]        x squared, summed over each unit; with CENTRED [>= 3 D/32]: its
//                                                          number, its mean, the squares of what is off it, summed
//
//   grid:      [1, 1, 1], one workgroup
//   requires:  D a multiple of 32
//   uses:      lib/folded.wgsl, lib/block.wgsl, one lib/<type>.wgsl
//   twin:      src/reference/get_rows.rs

struct Params {
    rows: u32,   // of this part
    row0: u32,   // where the part starts in the whole matrix
    units: u32,  // D/32
    scale: f32,
    stride: u32, // of several tokens
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> xn: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

override WG: u32 = 64u;

fn put(at: u32, weights: vec4<f32>) {
    let value = params.scale * weights;
    x[at] = value;
    xn[at] = value * gain[at];
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    let id = tokens[0];
    // An id below row0 wraps round to a large number.
    if id - params.row0 >= params.rows {
        return;
    }
    for (var unit = lane; unit < params.units; unit += WG) {
        let row = weights((id - params.row0) * params.units + unit);
        let at = 8u * unit;
        put(at, row.a);
        put(at + 1u, row.b);
        put(at + 2u, row.c);
        put(at + 3u, row.d);
        put(at + 4u, row.e);
        put(at + 5u, row.f);
        put(at + 6u, row.g);
        put(at + 7u, row.h);
        if CENTRED {
            let halves = block_sums(row);
            let mean = (halves.x + halves.y) / 32.0;
            let off = block_scaled(row, vec2(1.0), vec2(-mean));
            sums[3u * unit] = 32.0;
            sums[3u * unit + 1u] = params.scale * mean;
            sums[3u * unit + 2u] = params.scale * params.scale * block_dot(off, off);
        } else {
            sums[unit] = params.scale * params.scale * block_dot(row, row);
        }
    }
}
