use crate::ops::AddPositionParams;

/// The twin of `shaders/add_position.wgsl`: `w` [n_ctx, D] from row `n` on is added to all of `x` [T, D].
pub fn add_position(params: AddPositionParams, n: usize, w: &[f32], x: &mut [f32]) {
    for (x, w) in x.iter_mut().zip(&w[n * params.cols as usize..]) {
        *x = (f64::from(*x) + f64::from(*w)) as f32;
    }
}
