/// The error function, by its series without cancellation: 2/sqrt(pi) exp(-z^2) sum_n 2^n z^(2n+1) / (2n+1)!!.
fn erf(z: f64) -> f64 {
    if z.abs() > 6.0 {
        return z.signum(); // to 2e-17
    }
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= 2.0 * z * z / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * sum
}

/// x/2 (1 + erf(x / sqrt 2)).
pub fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
pub fn gelu_tanh(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    x / 2.0 * (1.0 + u.tanh())
}

/// x / (1 + exp(-x)).
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// g sigmoid(1.702 g) (u + 1), g being 7 at most and u from -7 to 7.
pub fn swiglu_clamped(g: f64, u: f64) -> f64 {
    let g = g.min(7.0);
    g / (1.0 + (-1.702 * g).exp()) * (u.clamp(-7.0, 7.0) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::{gelu, gelu_tanh, silu, swiglu_clamped};

    #[test]
    fn activations_are_those_of_the_books() {
        // The distribution function of a normal variable, by tables; what PyTorch gives for the other two.
        for (x, probability) in [
            (-6.0, 9.865_876_450_376_98e-10),
            (-3.0, 0.001_349_898_031_630_094_6),
            (-1.0, 0.158_655_253_931_457_05),
            (0.0, 0.5),
            (0.5, 0.691_462_461_274_013_1),
            (1.0, 0.841_344_746_068_542_9),
            (3.0, 0.998_650_101_968_369_9),
            (40.0, 1.0),
        ] {
            assert!((gelu(x) - x * probability).abs() < 1e-15 * (1.0 + x.abs()), "{x}");
        }
        assert!((gelu_tanh(1.0) - 0.841_191_990_608_276_4).abs() < 1e-9);
        assert!((silu(1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        // sigmoid(1.702) is 0.8457957659328212.
        assert!((swiglu_clamped(1.0, 1.0) - 2.0 * 0.845_795_765_932_821_2).abs() < 1e-15);
        assert_eq!(swiglu_clamped(1.0, -90.0), -3.0 * swiglu_clamped(1.0, 1.0));
        assert_eq!(swiglu_clamped(90.0, 9.0), 4.0 * swiglu_clamped(7.0, 1.0));
    }
}
