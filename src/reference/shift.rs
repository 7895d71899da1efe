use crate::ops::ShiftParams;

/// The twin of `shaders/shift.wgsl`. `turns(phase, pair)` gives (cos, sin) without the model's factor. `k` and `v`:
/// [S + N, KV HD] as plain numbers.
pub fn shift(
    params: ShiftParams,
    (head_dim, neox): (usize, bool),
    turns: impl Fn(u64, usize) -> (f64, f64),
    [k, v]: [&mut [f32]; 2],
) {
    let [kv_heads, rope_dim, sinks, shift, kept] =
        [params.kv_heads, params.rope_dim, params.sinks, params.shift, params.kept]
            .map(|n| n as usize);
    let (row, half) = (kv_heads * head_dim, rope_dim / 2);
    for to in sinks..sinks + kept {
        let from = (to + shift) * row..(to + shift + 1) * row;
        v.copy_within(from.clone(), to * row);
        k.copy_within(from, to * row);
        for head in k[to * row..(to + 1) * row].chunks_exact_mut(head_dim) {
            for pair in 0..half {
                let (a, b) = if neox { (pair, pair + half) } else { (2 * pair, 2 * pair + 1) };
                let (cos, sin) = turns(shift as u64, pair);
                let (x, y) = (f64::from(head[a]), f64::from(head[b]));
                head[a] = (x * cos + y * sin) as f32;
                head[b] = (y * cos - x * sin) as f32;
            }
        }
    }
}
