/// The twin of `shaders/sum_experts.wgsl`. `y`: [T, K, D]; `shares`: [T, K]; `x`: [T, D].
pub fn sum_experts(y: &[f32], shares: &[f32], used: usize, cols: usize, x: &mut [f32]) {
    for (token, x) in x.chunks_exact_mut(cols).enumerate() {
        for (i, x) in x.iter_mut().enumerate() {
            let choices = token * used..(token + 1) * used;
            let product =
                |choice: usize| f64::from(shares[choice]) * f64::from(y[choice * cols + i]);
            *x = (f64::from(*x) + choices.map(product).sum::<f64>()) as f32;
        }
    }
}
