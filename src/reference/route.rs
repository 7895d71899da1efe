use crate::ops::RouteParams;

/// The twin of `shaders/route.wgsl`: of every row of `logits` [T, E] the experts of the highest and their shares, highest
/// first, of equal ones the lower expert first.
pub fn route(params: RouteParams, logits: &[f32]) -> Vec<(u32, f32)> {
    let RouteParams { experts, used, scale } = params;
    let of_token = |logits: &[f32]| {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).expect("numbers").then(a.cmp(&b)));
        order.truncate(used as usize);
        let weight = |&expert: &usize| f64::from(logits[expert]).exp();
        let total: f64 = order.iter().map(weight).sum();
        let share = |expert: &usize| (f64::from(scale) * weight(expert) / total) as f32;
        order.iter().map(|expert| (*expert as u32, share(expert))).collect::<Vec<_>>()
    };
    logits.chunks_exact(experts as usize).flat_map(of_token).collect()
}
