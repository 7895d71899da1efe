// subgroup_check — sum[g, i] = sum of (256 j + 1) over the lanes j of the subgroup of lane i
//
//   binding  name    access   type   shape         unit
//   0        params  read     Params
//   1        sum     write    u32    [groups, WG]
//
//   grid:      [groups, 1, 1] workgroups
//   requires:  subgroups
//   twin:      src/reference/subgroup_check.rs
//
// Tells whether a workgroup is one subgroup: only then every lane has the sum over all of them.

struct Params {
    groups: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read_write> sum: array<u32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let total = subgroupAdd(256u * lane + 1u);
    if group.x < params.groups {
        sum[group.x * WG + lane] = total;
    }
}
