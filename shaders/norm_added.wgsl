// norm_added — y[r, i] = scale (y[r, i] + (x[r, i] - m) * w[i] / sqrt(mean_i((x[r, i] - m)^2) + eps) (+ b[i]));
//              m = 0, or mean_i(x[r, i]) with CENTRED. With NEXT also yn[r, i] = y[r, i] * next[i] / sqrt(mean_i(y[r, i]^2) + next_eps)
//
//   binding  name    access   type   shape               unit
//   0        params  read     Params
//   1        frame   read     u32    [4]                 n: position of the first token, tokens: their number
//   2        x       read     f32    [rows, cols]        what a block gave
//   3        w       read     f32    [cols]              gain
//   4        b       read     f32    [cols] or [1]       added where has_bias
//   5        next    read     f32    [cols] or [1]       gain of the norm that comes next, with NEXT
//   6        y       write    f32    [rows, cols]        the residual stream
//   7        yn      write    f32    [rows, cols] or [1] the stream, normalised, with NEXT
//
//   grid:      [rows, 1, 1] workgroups, one workgroup a row; rows >= tokens are left alone
//   requires:  WG a power of two; any cols; not both CENTRED and NEXT
//   uses:      lib/moments.wgsl, and lib/reduce.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one subgroup (norm_added_subgroup)
//   twin:      src/reference/norm.rs
//
// Whoever owns the residual writes the next input: the norm costs no dispatch of its own.

struct Params {
    cols: u32,
    has_bias: u32,
    eps: f32,
    scale: f32,
    next_eps: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> b: array<f32>;
@group(0) @binding(5) var<storage, read> next: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> yn: array<f32>;

override WG: u32 = 64u;
/// The mean is subtracted first: a LayerNorm.
/// The norm that comes next is computed, too.
override NEXT: bool = false;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.x >= frame[1] {
        return;
    }
    let row = group.x * params.cols;

    let by = moments(lane, row);

    var next_sum = 0.0;
    for (var i = lane; i < params.cols; i += WG) {
        var v = (x[row + i] - by.mean) * by.scale * w[i];
        if params.has_bias != 0u {
            v += b[i];
        }
        v = (v + y[row + i]) * params.scale;
        y[row + i] = v;
        next_sum += v * v;
    }
    if NEXT {
        let next_square = reduce_sum(lane, next_sum) / f32(params.cols);
        let next_scale = 1.0 / sqrt(next_square + params.next_eps);
        // A lane reads what it wrote itself.
        for (var i = lane; i < params.cols; i += WG) {
            yn[row + i] = y[row + i] * next_scale * next[i];
        }
    }
}
