use crate::ops::SoftcapParams;

/// The twin of `shaders/softcap.wgsl`.
pub fn softcap(params: SoftcapParams, y: &mut [f32]) {
    let cap = f64::from(params.cap);
    for y in y {
        *y = (cap * (f64::from(*y) / cap).tanh()) as f32;
    }
}
