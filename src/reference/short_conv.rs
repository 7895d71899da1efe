use super::silu;
use crate::ops::ShortConvParams;

/// The twin of `shaders/short_conv.wgsl`: of tokens from the first of a stream on. `from` [T, stride], `conv` [C, L]; gives
/// what enters the convolution [T, C], and what comes out of it [T, C + K].
pub fn short_conv(
    params: ShortConvParams,
    gated: bool,
    from: &[f32],
    conv: &[f32],
) -> [Vec<f32>; 2] {
    let [channels, stride, taps] =
        [params.channels, params.stride, params.taps].map(|n| n as usize);
    let rows: Vec<&[f32]> = from.chunks_exact(stride).collect();
    let z = |token: usize, i: usize| match gated {
        true => f64::from(rows[token][i]) * f64::from(rows[token][2 * channels + i]),
        false => f64::from(rows[token][i]),
    };
    let [mut kept, mut out] = [Vec::new(), Vec::new()];
    for (token, row) in rows.iter().enumerate() {
        for i in 0..channels {
            let seen = (0..taps.min(token + 1))
                .map(|back| f64::from(conv[(i + 1) * taps - 1 - back]) * z(token - back, i));
            let sum: f64 = seen.sum();
            kept.push(z(token, i) as f32);
            let gate = || f64::from(row[channels + i]);
            out.push(if gated { sum * gate() } else { silu(sum) } as f32);
        }
        out.extend(&row[channels..channels + params.kept as usize]);
    }
    [kept, out]
}
