// softcap — y[r, i] <- cap * tanh(y[r, i] / cap), or clamp(y[r, i], -cap, cap) where hard
//
//   binding  name    access   type   shape      unit
//   0        params  read     Params
//   1        y       write    f32    [rows, V]  logits, or products
//
//   grid:      [ceil(V / 4 WG), rows, 1] workgroups, four elements a lane
//   requires:  cap > 0; any V
//   uses:      nothing
//   twin:      src/reference/softcap.rs

struct Params {
    cols: u32,  // V
    cap: f32,
    hard: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;

/// WGSL's own may be off by 1e-5, and on some drivers is no number where exp overflows. Near zero by its series, where
/// the other way loses digits.
fn tanh_of(v: f32) -> f32 {
    let a = min(abs(v), 20.0);
    let s = a * a;
    let near = a * (1.0 + s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869489))));
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    return sign(v) * select(far, near, a < 0.25);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * params.cols;
    let first = 4u * WG * group.x + lane;
    let end = min(first + 4u * WG, params.cols);
    for (var i = first; i < end; i += WG) {
        let v = y[row + i];
        // What is not a number stays none, whatever a driver makes of it.
        if (bitcast<u32>(v) & 0x7fffffffu) <= 0x7f800000u {
            let bent = params.cap * tanh_of(v / params.cap);
            y[row + i] = select(bent, clamp(v, -params.cap, params.cap), params.hard != 0u);
        }
    }
}
