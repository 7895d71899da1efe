/// The twin of `shaders/bias.wgsl`.
pub fn bias(logits: &[f32], bias: &[f32], y: &mut [f32]) {
    for ((y, logit), bias) in y.iter_mut().zip(logits).zip(bias) {
        *y = (f64::from(*logit) + f64::from(*bias)) as f32;
    }
}
