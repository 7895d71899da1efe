use crate::ops::RmsNormParams;

/// The twin of `shaders/rms_norm.wgsl`: every row of `x` [T, D] into `y` [T, D].
pub fn rms_norm(params: RmsNormParams, x: &[f32], w: &[f32], y: &mut [f32]) {
    let cols = params.cols as usize;
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
        let sum: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let scale = 1.0 / (sum / cols as f64 + f64::from(params.eps)).sqrt();
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = (f64::from(x) * scale * f64::from(w)) as f32;
        }
    }
}
