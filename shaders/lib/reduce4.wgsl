// lib/reduce4.wgsl — sums over the lanes of one workgroup, behind one barrier.
//
// Needs from the kernel:  override WG: u32;
// Gives:                  note(lane, value), before: a sum that lane 0 gets from noted(), after
//                         reduce_sum4(lane, values) -> the totals, in lane 0
//
// Every lane of the workgroup must call reduce_sum4, and once only.

var<workgroup> noted_scratch: array<f32, WG>;
var<workgroup> reduce4_scratch: array<vec4<f32>, WG>;

fn note(lane: u32, value: f32) {
    noted_scratch[lane] = value;
}

fn noted() -> f32 {
    var sum = 0.0;
    for (var lane = 0u; lane < WG; lane++) {
        sum += noted_scratch[lane];
    }
    return sum;
}

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
