/// The twin of `shaders/subgroup_check.wgsl`, where a workgroup of `lanes` is one subgroup: [groups, lanes, 8].
pub fn subgroup_check(groups: usize, lanes: u32) -> Vec<u32> {
    let value = |lane: u32| 256 * lane + 1;
    let sum = (0..lanes).map(value).sum();
    let of_lane = |lane: u32| {
        let [next, neighbour, far] = [(lane + 3) % lanes, lane ^ 1, lane ^ (lanes / 2)].map(value);
        [lane, sum, value(lanes - 1), next, neighbour, far, value(3), value(0)]
    };
    let group: Vec<u32> = (0..lanes).flat_map(of_lane).collect();
    group.repeat(groups)
}
