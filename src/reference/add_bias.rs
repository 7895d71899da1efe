use crate::ops::AddBiasParams;

/// The twin of `shaders/add_bias.wgsl`.
pub fn add_bias(params: AddBiasParams, bias: &[f32], x: &mut [f32]) {
    for (x, bias) in x.iter_mut().zip(bias).take(params.cols as usize) {
        *x = (f64::from(*x) + f64::from(*bias)) as f32;
    }
}
