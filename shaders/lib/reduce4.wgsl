// lib/reduce4.wgsl — sums and maxima over the lanes of one workgroup, four at a time, behind two barriers.
//
// Needs from the kernel:  override WG: u32;   (a power of two, 64 at most)
// Gives:                  reduce_sum4(lane, values), reduce_max4(lane, values) -> the totals, in every lane
//                         reduce_set4(lane, lanes, values) -> the totals over so many neighbouring lanes, a power of
//                         two, in the first of them
//                         note(lane, value), before: a sum that noted() gives, after; every lane must call it; so
//                         do note_pair and noted_pair with two
//
// Every lane of the workgroup must call them; again and again, if need be. In two stages: a few lanes add up eight each,
// then every lane what these have found. No lane adds up all.

var<workgroup> reduce4_scratch: array<vec4<f32>, WG>;
var<workgroup> stage4_scratch: array<vec4<f32>, 8>;

fn reduce_sum4(lane: u32, values: vec4<f32>) -> vec4<f32> {
    let few = WG / min(WG, 8u);
    reduce4_scratch[lane] = values;
    workgroupBarrier();
    if lane < few {
        var sum = values;
        for (var other = lane + few; other < WG; other += few) {
            sum += reduce4_scratch[other];
        }
        stage4_scratch[lane] = sum;
    }
    workgroupBarrier();
    var total = stage4_scratch[0];
    for (var other = 1u; other < few; other++) {
        total += stage4_scratch[other];
    }
    return total;
}

/// All lanes add up in two stages; a set is small enough for one.
fn reduce_set4(lane: u32, lanes: u32, values: vec4<f32>) -> vec4<f32> {
    if lanes == WG {
        return reduce_sum4(lane, values);
    }
    reduce4_scratch[lane] = values;
    workgroupBarrier();
    var sum = values;
    if lane % lanes == 0u {
        for (var other = 1u; other < lanes; other++) {
            sum += reduce4_scratch[lane + other];
        }
    }
    workgroupBarrier(); // what comes next may write
    return sum;
}

fn reduce_max4(lane: u32, values: vec4<f32>) -> vec4<f32> {
    let few = WG / min(WG, 8u);
    reduce4_scratch[lane] = values;
    workgroupBarrier();
    if lane < few {
        var most = values;
        for (var other = lane + few; other < WG; other += few) {
            most = max(most, reduce4_scratch[other]);
        }
        stage4_scratch[lane] = most;
    }
    workgroupBarrier();
    var highest = stage4_scratch[0];
    for (var other = 1u; other < few; other++) {
        highest = max(highest, stage4_scratch[other]);
    }
    return highest;
}

var<private> noted_value: f32;
var<private> noted_lane: u32;

fn note(lane: u32, value: f32) {
    noted_value = value;
    noted_lane = lane;
}

fn noted() -> f32 {
    return reduce_sum4(noted_lane, vec4(noted_value, 0.0, 0.0, 0.0)).x;
}

var<private> noted_pair_value: vec2<f32>;

fn note_pair(lane: u32, values: vec2<f32>) {
    noted_pair_value = values;
    noted_lane = lane;
}

fn noted_pair() -> vec2<f32> {
    return reduce_sum4(noted_lane, vec4(noted_pair_value, 0.0, 0.0)).xy;
}
