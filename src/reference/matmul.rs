use super::{gelu, gelu_tanh, silu, swiglu_clamped};
use crate::ops::Epilogue;

/// The twin of `shaders/matvec.wgsl`, `shaders/matmul.wgsl` and its variants on plain weights. `x`: `[T, K]`; `w`:
/// [M, K]; `bias`: `[M]` or nothing; `y`: [T, width], of which the rest stays as it is.
pub fn matmul(
    epilogue: Epilogue,
    [x, w, bias]: [&[f32]; 3],
    cols: usize,
    width: usize,
    y: &mut [f32],
) {
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(width)) {
        let product = |(row, w): (usize, &[f32])| {
            let dot: f64 = x.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            dot + bias.get(row).map_or(0.0, |&bias| f64::from(bias))
        };
        let products: Vec<f64> = w.chunks_exact(cols).enumerate().map(product).collect();
        let each = |of: fn(f64) -> f64| products.iter().map(|&p| of(p)).collect();
        let pairs =
            |of: fn(f64, f64) -> f64| products.chunks_exact(2).map(|p| of(p[0], p[1])).collect();
        let added = || products.iter().zip(&*y).map(|(p, &y)| f64::from(y) + p).collect();
        let outputs: Vec<f64> = match epilogue {
            Epilogue::Store => each(|p| p),
            Epilogue::Add => added(),
            Epilogue::Gelu => each(gelu),
            Epilogue::GeluTanh => each(gelu_tanh),
            Epilogue::SwiGlu => pairs(|g, u| silu(g) * u),
            Epilogue::GeGluTanh => pairs(|g, u| gelu_tanh(g) * u),
            Epilogue::SwiGluClamped => pairs(swiglu_clamped),
        };
        y.iter_mut().zip(outputs).for_each(|(y, output)| *y = output as f32);
    }
}
