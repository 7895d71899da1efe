/// The twin of `shaders/lib/half.wgsl`, less the rounding: nothing beyond the largest half.
pub fn half(x: f32) -> f32 {
    let most = half::f16::MAX.to_f32();
    // What is not a number stays so.
    x.clamp(-most, most)
}
