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
        match epilogue {
            Epilogue::Store => {
                y.iter_mut().zip(products).for_each(|(y, product)| *y = product as f32);
            }
            Epilogue::Add => {
                y.iter_mut().zip(products).for_each(|(y, p)| *y = (f64::from(*y) + p) as f32);
            }
            Epilogue::SwiGlu => y.iter_mut().zip(products.chunks_exact(2)).for_each(|(y, p)| {
                *y = (p[0] / (1.0 + (-p[0]).exp()) * p[1]) as f32;
            }),
        }
    }
}
