// bias — y[r, i] <- logits[r, i] + bias[r, i]
//
//   binding  name    access   type   shape      unit
//   0        params  read     Params
//   1        logits  read     f32    [rows, V]
//   2        bias    read     f32    [rows, V]  added to logits, 0 where there is none
//   3        y       write    f32    [rows, V]  logits
//
//   grid:      [ceil(V / 4 WG), rows, 1] workgroups, four elements a lane
//   requires:  any V
//   uses:      nothing
//   twin:      src/reference/bias.rs
//
// The logits stay as they are: the same may be chosen from again, and somebody may read them.

struct Params {
    cols: u32,  // V
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * params.cols;
    let first = 4u * WG * group.x + lane;
    let end = min(first + 4u * WG, params.cols);
    for (var i = first; i < end; i += WG) {
        let v = logits[row + i];
        // What is not a number, or infinite, stays so, whatever a driver makes of a sum with it.
        let sum = bitcast<u32>(v + bias[row + i]);
        let bits = bitcast<u32>(v);
        y[row + i] = bitcast<f32>(select(sum, bits, (bits & 0x7f800000u) == 0x7f800000u));
    }
}
