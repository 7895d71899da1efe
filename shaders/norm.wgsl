// norm — y[r, i] = (x[s, i] - m) * w[i] / sqrt(mean_i((x[s, i] - m)^2) + eps) (+ b[i]);
//        s = r, or the last token's row with LAST; m = 0, or mean_i(x[s, i]) with CENTRED
//
//   binding  name    access   type   shape          unit
//   0        params  read     Params
//   1        frame   read     u32    [4]            n: position of the first token, tokens: their number
//   2        x       read     f32    [rows, cols]   activations
//   3        w       read     f32    [cols]         gain
//   4        b       read     f32    [cols] or [1]  added where has_bias
//   5        y       write    f32    [rows, cols]   activations ([1, cols] with LAST)
//
//   grid:      [rows, 1, 1] workgroups, one workgroup a row; rows >= tokens are left alone
//   requires:  WG a power of two; any cols
//   uses:      lib/moments.wgsl, and lib/reduce.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one subgroup (norm_subgroup)
//   twin:      src/reference/norm.rs

struct Params {
    cols: u32,
    has_bias: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> b: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;
/// One workgroup normalises the last token's row into y's only one.
override LAST: bool = false;
/// The mean is subtracted first: a LayerNorm.

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tokens = frame[1];
    if group.x >= tokens {
        return;
    }
    let source = select(group.x, tokens - 1u, LAST) * params.cols;
    let row = group.x * params.cols;

    let by = moments(lane, source);

    for (var i = lane; i < params.cols; i += WG) {
        var v = (x[source + i] - by.mean) * by.scale * w[i];
        if params.has_bias != 0u {
            v += b[i];
        }
        y[row + i] = v;
    }
}
