use super::norm::normed;
use crate::ops::{HeadNormParams, NormKind};

/// The twin of `shaders/head_norm.wgsl`: groups of queries, keys and values in every row of `qkv` [T, stride]. `gain`: the
/// queries', then the keys'.
pub fn head_norm(kind: NormKind, params: HeadNormParams, gain: &[f32], qkv: &mut [f32]) {
    let HeadNormParams { stride, q_norms, q_size, k_norms, k_size, v_norms, own, eps } = params;
    let [stride, q_norms, q_size, k_norms, k_size, v_norms] =
        [stride, q_norms, q_size, k_norms, k_size, v_norms].map(|n| n as usize);
    let ones = vec![1.0; k_size];
    let q_gains = match (q_norms, own) {
        (0, _) => 0,
        (_, 0) => q_size,
        _ => q_norms * q_size,
    };
    let (q_gain, k_gain) = gain.split_at(q_gains);
    for row in qkv.chunks_exact_mut(stride) {
        let mut norm = |at: usize, gain: &[f32]| {
            let group = &mut row[at..at + gain.len()];
            let normed = normed(kind, eps, group);
            for ((v, normed), &gain) in group.iter_mut().zip(normed).zip(gain) {
                *v = (normed * f64::from(gain)) as f32;
            }
        };
        let nth = |i: usize| if own != 0 { i } else { 0 };
        for i in 0..q_norms {
            norm(i * q_size, &q_gain[nth(i) * q_size..][..q_size]);
        }
        let keys = q_norms * q_size;
        for i in 0..k_norms {
            norm(keys + i * k_size, &k_gain[nth(i) * k_size..][..k_size]);
        }
        let values = keys + k_norms * k_size;
        for i in 0..v_norms {
            norm(values + i * k_size, &ones);
        }
    }
}
