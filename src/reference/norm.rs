use crate::ops::{NormKind, NormParams};

/// `x` less its mean where the kind is LayerNorm, over the root of the mean of its squares and `eps`.
pub(super) fn normed(kind: NormKind, eps: f32, x: &[f32]) -> Vec<f64> {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let mut x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    if kind == NormKind::Layer {
        let middle = mean(&x);
        x.iter_mut().for_each(|v| *v -= middle);
    }
    let squares: Vec<f64> = x.iter().map(|v| v * v).collect();
    let scale = 1.0 / (mean(&squares) + f64::from(eps)).sqrt();
    x.iter().map(|v| v * scale).collect()
}

/// The twin of `shaders/norm.wgsl`: every row of `x` [T, D] into `y` [T, D]. `w`: `[D]`; `b`: `[D]`, or whatever where
/// there is no bias.
pub fn norm(kind: NormKind, params: NormParams, [x, w, b]: [&[f32]; 3], y: &mut [f32]) {
    let cols = params.cols as usize;
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
        for (i, v) in normed(kind, params.eps, x).into_iter().enumerate() {
            let bias = if params.has_bias != 0 { f64::from(b[i]) } else { 0.0 };
            y[i] = (v * f64::from(w[i]) + bias) as f32;
        }
    }
}
