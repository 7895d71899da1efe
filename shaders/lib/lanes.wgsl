// lib/lanes.wgsl — what lanes hand to one another, where they do it through workgroup memory alone.
//
// Gives:  SHUFFLED: whether a lane has what others have from their registers; where not, the kernel puts it into
//         workgroup memory
//         lane_eight(own, lane), lane_four(own, lane) -> what that lane has; for SHUFFLED kernels alone
// Uses:   lib/eight.wgsl

const SHUFFLED: bool = false;

fn lane_eight(own: Eight, lane: u32) -> Eight {
    return own;
}

fn lane_four(own: vec4<f32>, lane: u32) -> vec4<f32> {
    return own;
}
