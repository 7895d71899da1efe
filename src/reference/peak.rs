use crate::ops::PeakParams;

/// The twin of `shaders/peak.wgsl`.
pub fn peak(params: PeakParams, y: &mut [f32]) {
    let (a, b) = (f64::from(params.a), f64::from(params.b));
    for (i, y) in y.iter_mut().enumerate() {
        let ends = (0..16).map(|j| {
            let first = i as f64 + f64::from(j) / 16.0;
            (0..params.steps).fold(first, |x, _| a * x + b)
        });
        *y = ends.sum::<f64>() as f32;
    }
}
