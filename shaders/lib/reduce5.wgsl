// lib/reduce5.wgsl — five sums over the lanes of one workgroup.
//
// Needs from the kernel:  override WG: u32;
// Gives:                  reduce_sum5(lane, four, fifth) -> the totals, in lane 0
// Uses:                   lib/five.wgsl
//
// Has one barrier: every lane of the workgroup must call it, and once only.

var<workgroup> reduce5_scratch: array<Five, WG>;

fn reduce_sum5(lane: u32, four: vec4<f32>, fifth: f32) -> Five {
    reduce5_scratch[lane] = Five(four, fifth);
    workgroupBarrier();
    var sums = Five(four, fifth);
    if lane == 0u {
        for (var other = 1u; other < WG; other++) {
            sums.four += reduce5_scratch[other].four;
            sums.fifth += reduce5_scratch[other].fifth;
        }
    }
    return sums;
}
