use crate::ops::AttentionParams;

/// The twin of `shaders/attention.wgsl` and `shaders/attention_tiles.wgsl`, for tokens n, n + 1, … with their true positions, said by
/// token instead of by slot: token m is seen by query n when it is a sink or one of the last W; where
/// sinks are not `kept`, only then when it is one of the last W.
/// `q`: [T, 3, H HD]; `k`, `v`: [S + N, KV HD]; `out`: [T, H HD].
pub fn attention(
    params: AttentionParams,
    (n, sinks_kept): (u64, bool),
    q: &[f32],
    [k, v]: [&[f32]; 2],
    out: &mut [f32],
) {
    let [heads, kv_heads, head_dim] =
        [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
    let [sinks, window, slots] =
        [params.ring.sinks, params.ring.window, params.ring.slots].map(u64::from);
    let row = heads * head_dim;
    for (n, (t, out)) in (n..).zip(out.chunks_exact_mut(row).enumerate()) {
        // (storage index, which of the three queries serves it)
        let lap = |m: u64| (m - sinks) / slots;
        let first = (n + 1).saturating_sub(window).max(sinks);
        let near = |m: &u64| sinks_kept || n - m < window;
        let kept = (0..sinks.min(n + 1)).filter(near).map(|m| (m as usize, 2));
        let recent = (first..n + 1)
            .map(|m| ((sinks + (m - sinks) % slots) as usize, usize::from(lap(m) != lap(n))));
        let seen: Vec<_> = kept.chain(recent).collect();
        for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let kv = h / (heads / kv_heads) * head_dim;
            let at = |index: usize| index * kv_heads * head_dim + kv;
            let scores = seen.iter().map(|&(index, serves)| {
                let q = &q[(t * 3 + serves) * row + h * head_dim..][..head_dim];
                let k = &k[at(index)..][..head_dim];
                let dot = q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b));
                dot.sum::<f64>() * f64::from(params.scale)
            });
            let scores: Vec<f64> = scores.collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let total: f64 = shares.iter().sum();
            for (d, out) in out.iter_mut().enumerate() {
                let value = |index: usize| f64::from(v[at(index) + d]);
                let sum = seen.iter().zip(&shares).map(|(&(index, _), p)| p * value(index));
                *out = (sum.sum::<f64>() / total) as f32;
            }
        }
    }
}
