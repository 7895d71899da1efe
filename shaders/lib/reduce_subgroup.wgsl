// lib/reduce_subgroup.wgsl — sums over the lanes of a workgroup that is one subgroup (ops/subgroup.rs makes sure).
//
// Gives:  reduce_sum(lane, value), reduce_sum4(lane, values), reduce_max4(lane, values) -> the totals, in every lane
//         reduce_set4(lane, lanes, values) -> the totals over so many neighbouring lanes, a power of two
//         note(lane, value), before: a sum that noted() gives, after; so do note_pair and noted_pair with two
//
// No barrier and no workgroup memory, which lib/reduce.wgsl and lib/reduce4.wgsl need.

var<private> noted_value: f32;

fn reduce_sum(lane: u32, value: f32) -> f32 {
    return subgroupAdd(value);
}

fn reduce_sum4(lane: u32, values: vec4<f32>) -> vec4<f32> {
    return subgroupAdd(values);
}

fn reduce_set4(lane: u32, lanes: u32, values: vec4<f32>) -> vec4<f32> {
    if lanes == WG {
        return subgroupAdd(values);
    }
    var sum = values;
    for (var step = 1u; step < lanes; step *= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

fn reduce_max4(lane: u32, values: vec4<f32>) -> vec4<f32> {
    return subgroupMax(values);
}

fn note(lane: u32, value: f32) {
    noted_value = subgroupAdd(value);
}

fn noted() -> f32 {
    return noted_value;
}

var<private> noted_pair_value: vec2<f32>;

fn note_pair(lane: u32, values: vec2<f32>) {
    noted_pair_value = subgroupAdd(values);
}

fn noted_pair() -> vec2<f32> {
    return noted_pair_value;
}
