// attention_join — att[h] = sum_s e^(m_s - m) o_s / sum_s e^(m_s - m) l_s,  m = max m_s: one attention of several splits
//
//   binding  name    access   type       shape                  unit
//   0        params  read     Params                            span: slots of a split
//   1        frame   read     u32        [4], or [R, 64]        n: the token's position, rows (in the first one's)
//   2        parts   read     vec4<f32>  [R, splits, H, HD/4 + 1] o: sums of p v; then m: the highest score; l: the sum of p
//   3        out     write    vec4<f32>  [R, H HD/4]            activations
//
//   grid:      [ceil(H HD/4 / WG), 1, R] workgroups
//   requires:  HD a multiple of 4; splits that hold a stored slot have been written
//   uses:      lib/attention_params.wgsl, lib/frame.wgsl
//   twin:      src/reference/attention.rs
//
// A lane has four dimensions of one head.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let fours = params.head_dim / 4u;
    let four = group.x * WG + lane;
    if four >= params.heads * fours || group.z >= frame[1] {
        return;
    }
    let stored = min(frame[FRAME_ROW * group.z] + 1u, params.sinks + params.slots);
    let splits = (stored + params.span - 1u) / params.span;
    let stride = params.heads * (fours + 1u);
    let at = group.z * splits_of(params) * stride + four / fours * (fours + 1u);
    let d = at + four % fours;
    let m = at + fours;
    var highest = parts[m].x;
    for (var s = 1u; s < splits; s++) {
        highest = max(highest, parts[s * stride + m].x);
    }
    var sum = vec4(0.0);
    var total = 0.0;
    for (var s = 0u; s < splits; s++) {
        let of_split = parts[s * stride + m];
        let scale = exp(of_split.x - highest);
        sum = fma(vec4(scale), parts[s * stride + d], sum);
        total = fma(scale, of_split.y, total);
    }
    out[group.z * params.heads * fours + four] = sum / total;
}
