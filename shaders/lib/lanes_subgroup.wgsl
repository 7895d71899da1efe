// lib/lanes_subgroup.wgsl — what lanes hand to one another, where a workgroup is one subgroup.
//
// Gives:  SHUFFLED: whether a lane has what others have from their registers: on software drivers, which read workgroup
//         memory lane by lane; a GPU reads it at once
//         lane_eight(own, lane), lane_four(own, lane) -> what that lane has
// Uses:   lib/eight.wgsl

override SHUFFLED: bool = false;

fn lane_eight(own: Eight, lane: u32) -> Eight {
    return Eight(subgroupShuffle(own.a, lane), subgroupShuffle(own.b, lane));
}

fn lane_four(own: vec4<f32>, lane: u32) -> vec4<f32> {
    return subgroupShuffle(own, lane);
}
