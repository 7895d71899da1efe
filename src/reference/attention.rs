use crate::ops::AttentionParams;

/// The twin of `shaders/attention.wgsl` and `shaders/attention_tiles.wgsl`, for tokens n, n + 1, … with their true positions.
/// `q`: [T, 3, H HD]; `k`, `v`: [S + N, KV HD]; `terms`: [H, 4]; `out`: [T, H HD].
pub fn attention(
    params: AttentionParams,
    (n, sinks_kept): (u64, bool),
    q: &[f32],
    [k, v]: [&[f32]; 2],
    terms: &[f32],
    out: &mut [f32],
) {
    let [heads, kv_heads, head_dim] =
        [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
    let row = heads * head_dim;
    for (n, (t, out)) in (n..).zip(out.chunks_exact_mut(row).enumerate()) {
        let q = &q[t * 3 * row..][..3 * row];
        for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let kv = h / (heads / kv_heads) * head_dim;
            let weights = weights(params, (n, sinks_kept), h, q, k, &terms[4 * h..][..4]);
            for (d, out) in out.iter_mut().enumerate() {
                let value = |index: usize| f64::from(v[index * kv_heads * head_dim + kv + d]);
                *out = weights.iter().map(|&(index, p)| p * value(index)).sum::<f64>() as f32;
            }
        }
    }
}

/// The softmax weights of one head of token n, with the storage index of each key. Said by token instead of by
/// slot: token m is seen by query n when it is a sink or one of the last W; where sinks are not `kept`, only then
/// when it is one of the last W. `q`: [3, H HD], those of token n; `terms`: [4], the head's.
///
/// A score is q . k scale, kept below the cap where there is one, less ALiBi's slope times the distance: of a token of the
/// window n - m; of sink m as the cache has it, where what lies between never gets longer than the window. The sum of
/// exponentials begins with what `terms` says.
pub(super) fn weights(
    params: AttentionParams,
    (n, sinks_kept): (u64, bool),
    head: usize,
    q: &[f32],
    k: &[f32],
    terms: &[f32],
) -> Vec<(usize, f64)> {
    let [heads, kv_heads, head_dim] =
        [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
    let [sinks, window, slots] =
        [params.ring.sinks, params.ring.window, params.ring.slots].map(u64::from);
    let [slope, start, begun] = [terms[0], terms[1], terms[2]].map(f64::from);
    // (storage index, which of the three queries serves it, distance)
    let lap = |m: u64| (m - sinks) / slots;
    let first = (n + 1).saturating_sub(window).max(sinks);
    let near = |m: &u64| sinks_kept && params.forgets == 0 || n - m < window;
    let inside = n.min(sinks + window - 1);
    let kept = (0..sinks.min(n + 1)).filter(near).map(|m| (m as usize, 2, inside - m));
    let recent = (first..n + 1)
        .map(|m| ((sinks + (m - sinks) % slots) as usize, usize::from(lap(m) != lap(n)), n - m));
    let kv = head / (heads / kv_heads) * head_dim;
    let cap = f64::from(params.cap);
    let scores = kept.chain(recent).map(|(index, serves, distance)| {
        let q = &q[(serves * heads + head) * head_dim..][..head_dim];
        let k = &k[index * kv_heads * head_dim + kv..][..head_dim];
        let dot = q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b));
        let score = dot.sum::<f64>() * f64::from(params.scale);
        let score = if cap > 0.0 { cap * (score / cap).tanh() } else { score };
        (index, score - slope * distance as f64)
    });
    let scores: Vec<(usize, f64)> = scores.collect();
    let highest = scores.iter().map(|s| s.1).fold(start, f64::max);
    let seen: f64 = scores.iter().map(|s| (s.1 - highest).exp()).sum();
    let total = seen + begun * (start - highest).exp();
    scores.into_iter().map(|(index, s)| (index, (s - highest).exp() / total)).collect()
}
