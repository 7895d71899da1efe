use crate::ops::AttentionParams;

/// The twin of `shaders/rope_store.wgsl`, for one pass over tokens n, n + 1, … with their true,
/// never reduced positions. `turns(phase, pair)` gives (cos, sin). `q`: [T, 3, H HD]; `k` and `v`:
/// [S + N, KV HD] as plain numbers.
pub fn rope_store(
    params: AttentionParams,
    neox: bool,
    n: u64,
    qkv: &[f32],
    turns: impl Fn(u64, usize) -> (f64, f64),
    [q, k, v]: [&mut [f32]; 3],
) {
    let [heads, kv_heads, head_dim, rope_dim] =
        [params.heads, params.kv_heads, params.head_dim, params.rope_dim].map(|n| n as usize);
    let [sinks, window, slots] =
        [params.ring.sinks, params.ring.window, params.ring.slots].map(u64::from);
    let half = rope_dim / 2;
    let turned = |head: &[f32], phase: u64| {
        let mut out = head.to_vec();
        for pair in 0..half {
            let (a, b) = if neox { (pair, pair + half) } else { (2 * pair, 2 * pair + 1) };
            let ((cos, sin), x, y) = (turns(phase, pair), f64::from(head[a]), f64::from(head[b]));
            out[a] = (x * cos - y * sin) as f32;
            out[b] = (x * sin + y * cos) as f32;
        }
        out
    };
    let row = (heads + 2 * kv_heads) * head_dim;
    for (n, (t, token)) in (n..).zip(qkv.chunks_exact(row).enumerate()) {
        let place = if n < sinks { n } else { sinks + (n - sinks) % slots };
        let phases = [place, place + slots, n.min(sinks + window - 1)];
        let (queries, rest) = token.split_at(heads * head_dim);
        let (keys, values) = rest.split_at(kv_heads * head_dim);
        for (i, phase) in phases.into_iter().enumerate() {
            for (h, head) in queries.chunks_exact(head_dim).enumerate() {
                let at = ((t * 3 + i) * heads + h) * head_dim;
                q[at..at + head_dim].copy_from_slice(&turned(head, phase));
            }
        }
        let at = place as usize * kv_heads * head_dim;
        for (h, head) in keys.chunks_exact(head_dim).enumerate() {
            k[at + h * head_dim..][..head_dim].copy_from_slice(&turned(head, place));
        }
        v[at..at + values.len()].copy_from_slice(values);
    }
}
