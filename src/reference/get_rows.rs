/// The twin of `shaders/get_rows.wgsl` on plain weights. `w`: `[V, D]`; `x`: [T, D].
pub fn get_rows(tokens: &[u32], w: &[f32], cols: usize, scale: f32, x: &mut [f32]) {
    for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(cols)) {
        let row = &w[token as usize * cols..][..cols];
        x.iter_mut().zip(row).for_each(|(x, w)| *x = scale * w);
    }
}
