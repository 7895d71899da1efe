// lib/reduce_subgroup.wgsl — sums over the lanes of a workgroup that is one subgroup (ops/subgroup.rs makes sure).
//
// Gives:  reduce_sum(lane, value), reduce_sum4(lane, values), reduce_sum5(lane, four, fifth)
//         -> the totals, in every lane
// Uses:   lib/five.wgsl
//
// No barrier and no workgroup memory, which lib/reduce.wgsl, reduce4.wgsl and reduce5.wgsl need.

fn reduce_sum(lane: u32, value: f32) -> f32 {
    return subgroupAdd(value);
}

fn reduce_sum4(lane: u32, values: vec4<f32>) -> vec4<f32> {
    return subgroupAdd(values);
}

fn reduce_sum5(lane: u32, four: vec4<f32>, fifth: f32) -> Five {
    return Five(subgroupAdd(four), subgroupAdd(fifth));
}
