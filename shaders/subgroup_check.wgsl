// subgroup_check — what a workgroup's lanes see of their subgroup, with value(i) = 256 i + 1 and lane l:
//
//   seen[g, l] = l itself, sum and maximum of all values, value(l + 3 mod WG), value(l ^ 1), value(l ^ WG / 2),
//                value(3), value(0)
//
//   binding  name    access   type   shape            unit
//   0        params  read     Params
//   1        seen    write    u32    [groups, WG, 8]
//
//   grid:      [groups, 1, 1] workgroups
//   requires:  subgroups; WG a power of two, at least 4
//   twin:      src/reference/subgroup_check.rs
//
// Tells whether a workgroup is one subgroup whose lanes are counted as the workgroup's: only then all of this holds.

struct Params {
    groups: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read_write> seen: array<vec4<u32>>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let value = 256u * lane + 1u;
    let most = u32(subgroupMax(f32(value)));
    let sums = vec4(subgroup_lane, subgroupAdd(value), most, subgroupShuffle(value, (lane + 3u) % WG));
    let others = vec4(
        subgroupShuffleXor(value, 1u),
        subgroupShuffleXor(value, WG / 2u),
        subgroupBroadcast(value, 3u),
        subgroupBroadcastFirst(value),
    );
    if group.x < params.groups {
        let at = 2u * (group.x * WG + lane);
        seen[at] = sums;
        seen[at + 1u] = others;
    }
}
