use crate::ops::NO_TOKEN;

/// The twin of `shaders/argmax.wgsl`.
pub fn argmax(logits: &[f32], banned: &[u32]) -> u32 {
    if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        return NO_TOKEN;
    }
    let allowed = |id: &usize| banned[id / 32] >> (id % 32) & 1 == 0 && logits[*id].is_finite();
    let better = |best: Option<usize>, id: usize| match best {
        Some(best) if logits[best] >= logits[id] => Some(best),
        _ => Some(id),
    };
    (0..logits.len()).filter(allowed).fold(None, better).map_or(NO_TOKEN, |id| id as u32)
}
