/// The twin of `shaders/get_rows.wgsl` on plain weights. `w`: `[V, D]`; `x`: [T, D].
pub fn get_rows(tokens: &[u32], w: &[f32], cols: usize, x: &mut [f32]) {
    for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(cols)) {
        x.copy_from_slice(&w[token as usize * cols..][..cols]);
    }
}
