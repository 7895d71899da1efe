use super::attention::weights;
use crate::ops::AttentionParams;

/// The twin of `shaders/shares.wgsl`, for one layer and tokens n, n + 1, … with their true positions: the softmax
/// weights of `attention`, on the first stored keys. `q`: [T, 3, H HD]; `k`: [S + N, KV HD]; `terms`: [H, 4];
/// `out`: [T, H, FIRST].
pub fn shares(
    params: AttentionParams,
    (n, sinks_kept): (u64, bool),
    first: usize,
    q: &[f32],
    k: &[f32],
    terms: &[f32],
    out: &mut [f32],
) {
    let heads = params.heads as usize;
    let row = heads * params.head_dim as usize;
    out.fill(0.0);
    for (t, n) in (n..).take(q.len() / (3 * row)).enumerate() {
        let q = &q[t * 3 * row..][..3 * row];
        for h in 0..heads {
            let out = &mut out[(t * heads + h) * first..][..first];
            let terms = &terms[4 * h..][..4];
            for (index, p) in weights(params, (n, sinks_kept), h, q, k, terms) {
                if let Some(share) = out.get_mut(index) {
                    *share = p as f32;
                }
            }
        }
    }
}
