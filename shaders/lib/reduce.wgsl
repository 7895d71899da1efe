// lib/reduce.wgsl — a sum over the lanes of one workgroup.
//
// Needs from the kernel:  override WG: u32;   (a power of two)
// Gives:                  reduce_sum(lane, value) -> the total, in every lane
//
// Has barriers: every lane of the workgroup must call it.

var<workgroup> reduce_scratch: array<f32, WG>;

fn reduce_sum(lane: u32, value: f32) -> f32 {
    workgroupBarrier();                    // an earlier call may still be read
    reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            reduce_scratch[lane] += reduce_scratch[lane + stride];
        }
        workgroupBarrier();
    }
    return reduce_scratch[0];
}
