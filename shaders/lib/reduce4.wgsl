// lib/reduce4.wgsl — four sums over the lanes of one workgroup.
//
// Needs from the kernel:  override WG: u32;
// Gives:                  reduce_sum4(lane, values) -> the totals, in lane 0
//
// Has one barrier: every lane of the workgroup must call it, and once only.

var<workgroup> reduce4_scratch: array<vec4<f32>, WG>;

fn reduce_sum4(lane: u32, values: vec4<f32>) -> vec4<f32> {
    reduce4_scratch[lane] = values;
    workgroupBarrier();
    var sums = values;
    if lane == 0u {
        for (var other = 1u; other < WG; other++) {
            sums += reduce4_scratch[other];
        }
    }
    return sums;
}
