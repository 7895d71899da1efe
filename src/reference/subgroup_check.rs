/// The twin of `shaders/subgroup_check.wgsl`, where a workgroup of `lanes` is one subgroup: [groups, lanes].
pub fn subgroup_check(groups: usize, lanes: u32) -> Vec<u32> {
    let total = (0..lanes).map(|lane| 256 * lane + 1).sum();
    vec![total; groups * lanes as usize]
}
