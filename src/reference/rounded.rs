/// The twin of `shaders/lib/int8.wgsl`: activations as the bytes say them, each 32 with their largest as 127.
pub fn rounded(x: &[f32]) -> Vec<f32> {
    let block = |x: &[f32]| -> Vec<f32> {
        let most = x.iter().fold(0.0f64, |most, &x| most.max(f64::from(x).abs()));
        let scale = most / 127.0;
        let byte =
            |x: f32| if scale > 0.0 { (f64::from(x) / scale).round_ties_even() } else { 0.0 };
        x.iter().map(|&x| (scale * byte(x)) as f32).collect()
    };
    x.chunks(32).flat_map(block).collect()
}
