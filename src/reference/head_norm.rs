use crate::ops::HeadNormParams;

/// The twin of `shaders/head_norm.wgsl`: heads of queries and keys in every row of `qkv` [T, (H + 2 KV) HD]. `gain`: [2, HD].
pub fn head_norm(params: HeadNormParams, gain: &[f32], qkv: &mut [f32]) {
    let [heads, kv_heads, head_dim] =
        [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
    for row in qkv.chunks_exact_mut((heads + 2 * kv_heads) * head_dim) {
        for (h, head) in row.chunks_exact_mut(head_dim).take(heads + kv_heads).enumerate() {
            let gain = &gain[if h < heads { 0 } else { head_dim }..][..head_dim];
            let sum: f64 = head.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let scale = 1.0 / (sum / head_dim as f64 + f64::from(params.eps)).sqrt();
            for (v, &gain) in head.iter_mut().zip(gain) {
                *v = (f64::from(*v) * scale * f64::from(gain)) as f32;
            }
        }
    }
}
