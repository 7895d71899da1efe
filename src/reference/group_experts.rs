/// The twin of `shaders/group_experts.wgsl`: the tiles of `chosen`, the experts of each choice, of which there are `experts`:
/// each an expert and some of its choices, in order.
pub fn group_experts(chosen: &[u32], experts: usize, tile: usize) -> Vec<(u32, Vec<u32>)> {
    let of_expert = |expert: u32| {
        let own = |&i: &u32| chosen[i as usize] == expert;
        let own: Vec<u32> = (0..chosen.len() as u32).filter(own).collect();
        own.chunks(tile).map(|choices| (expert, choices.to_vec())).collect::<Vec<_>>()
    };
    (0..experts as u32).flat_map(of_expert).collect()
}
