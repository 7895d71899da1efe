use crate::ops::SoftcapParams;

/// The twin of `shaders/softcap.wgsl`.
pub fn softcap(params: SoftcapParams, y: &mut [f32]) {
    let cap = f64::from(params.cap);
    for y in y {
        let v = f64::from(*y);
        let bent = if params.hard == 0 { cap * (v / cap).tanh() } else { v.clamp(-cap, cap) };
        *y = bent as f32;
    }
}
