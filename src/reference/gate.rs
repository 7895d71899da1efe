use super::norm::normed;
use super::silu;
use crate::ops::{GateParams, NormKind};

/// The twin of `shaders/gate.wgsl`: `z` [T, stride] on `x` [T, H size], which is normed where there are gains.
pub fn gate(params: GateParams, z: &[f32], gain: Option<&[f32]>, x: &mut [f32]) {
    let [heads, size, stride, first] =
        [params.heads, params.size, params.stride, params.first].map(|n| n as usize);
    for (x, z) in x.chunks_exact_mut(heads * size).zip(z.chunks_exact(stride)) {
        for (x, z) in x.chunks_exact_mut(size).zip(z[first..].chunks_exact(size)) {
            let unit: Vec<f64> = match gain {
                Some(_) => normed(NormKind::Rms, params.eps, x),
                None => x.iter().map(|&x| f64::from(x)).collect(),
            };
            for i in 0..size {
                let z = f64::from(z[i]);
                let by = match gain {
                    Some(gain) => f64::from(gain[i]) * silu(z),
                    None => 1.0 / (1.0 + (-z).exp()),
                };
                x[i] = (unit[i] * by) as f32;
            }
        }
    }
}
