use half::f16;

/// The twin of `shaders/half_check.wgsl`: [len, 2].
pub fn half_check(len: u16) -> Vec<f32> {
    (0..len).flat_map(|i| [i, i | 0x8000]).map(|bits| f16::from_bits(bits).to_f32()).collect()
}
