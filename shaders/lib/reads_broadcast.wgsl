// lib/reads_broadcast.wgsl — how a unit's words are read where all lanes of a subgroup want the same: by its first lane.
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>; reads_lane set to the lane
// Gives:                  read_quants(i), read_scales(i)
//
// A software driver reads for each lane in turn.

var<private> reads_lane: u32;

fn read_quants(i: u32) -> vec4<u32> {
    var words = vec4(0u);
    if reads_lane == 0u {
        words = quants[i];
    }
    return subgroupBroadcastFirst(words);
}

fn read_scales(i: u32) -> u32 {
    var word = 0u;
    if reads_lane == 0u {
        word = scales[i];
    }
    return subgroupBroadcastFirst(word);
}
