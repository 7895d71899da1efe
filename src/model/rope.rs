//! Rotary positions: how fast each pair of dimensions turns, and what a file says of that.
use super::family::Family;
use crate::format::{Gguf, shown};
use crate::{Error, Result};

/// Which dimensions of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// 2i and 2i + 1, as llama's files have it.
    Norm,
    /// i and i + R/2.
    Neox,
}

/// How the rotary frequencies were stretched for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained; or by the file's own divisors (`rope_freqs.weight`, Llama 3).
    None,
    /// Every frequency divided by this.
    Linear {
        /// How many times longer.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): high frequencies kept, low ones divided, a ramp between.
    Yarn {
        /// How many times longer.
        factor: f32,
        /// The context before stretching, in tokens.
        n_ctx_orig: u32,
        /// Turns over that context above which a frequency is kept.
        beta_fast: f32,
        /// Turns below which it is divided in full.
        beta_slow: f32,
        /// The ramp's weight; 1 is YaRN, 0 is linear.
        ext_factor: f32,
        /// A further scale of queries and keys.
        attn_factor: f32,
        /// Of the logarithm of `factor` in that scale, where a file has one; 0 otherwise.
        log_multiplier: f32,
        /// Whether the ends of the ramp are whole pairs.
        rounded: bool,
    },
    /// By one of the file's two lists of divisors (`rope_factors_short`, `rope_factors_long`): which, decides the capacity.
    Long {
        /// The context that the short list holds for, in tokens.
        n_ctx_orig: u32,
        /// A further scale of queries and keys.
        attn_factor: f32,
    },
}

/// Rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The wavelength's base.
    pub base: f32,
    /// R: dimensions of a head that are turned.
    pub dim: usize,
    /// Which of them are pairs.
    pub layout: RopeLayout,
    /// Stretching.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Radians a position for each pair [R/2], and what cosines and sines are multiplied by.
    /// `factors` are the file's own divisors [R/2].
    pub fn frequencies(&self, factors: Option<&[f32]>) -> (Vec<f64>, f64) {
        let (base, dim) = (f64::from(self.base), self.dim as f64);
        let plain = (0..self.dim / 2).map(|pair| {
            let divisor = factors.and_then(|f| f.get(pair)).map_or(1.0, |&f| f64::from(f));
            base.powf(-2.0 * pair as f64 / dim) / divisor
        });
        match self.scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Long { attn_factor, .. } => (plain.collect(), f64::from(attn_factor)),
            RopeScaling::Linear { factor } => {
                (plain.map(|frequency| frequency / f64::from(factor)).collect(), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                n_ctx_orig,
                beta_fast,
                beta_slow,
                ext_factor,
                attn_factor,
                log_multiplier,
                rounded,
            } => {
                let [factor, fast, slow, ext, attn, multiplier] =
                    [factor, beta_fast, beta_slow, ext_factor, attn_factor, log_multiplier]
                        .map(f64::from);
                // The pair that turns `beta` times over the original context.
                let pair_of = |beta: f64| {
                    let turns = f64::from(n_ctx_orig) / (beta * std::f64::consts::TAU);
                    dim * turns.ln() / (2.0 * base.ln())
                };
                let [low, high] = [pair_of(fast), pair_of(slow)];
                let [low, high] = if rounded { [low.floor(), high.ceil()] } else { [low, high] };
                let [low, high] = [low.max(0.0), high.min(dim - 1.0)];
                let mixed = plain.enumerate().map(|(pair, frequency)| {
                    let ramp = (pair as f64 - low) / (high - low).max(0.001);
                    let kept = (1.0 - ramp.clamp(0.0, 1.0)) * ext;
                    frequency / factor * (1.0 - kept) + frequency * kept
                });
                let sharpness = |multiplier: f64| 1.0 + 0.1 * multiplier * factor.ln();
                let sharpened =
                    if ext == 0.0 { 1.0 } else { sharpness(1.0) / sharpness(multiplier) };
                (mixed.collect(), attn * sharpened)
            }
        }
    }
}

/// cos and sin of every phase and pair [phases, R/2, 2], computed in f64, times `scale`.
pub fn phase_table(frequencies: &[f64], scale: f64, phases: usize) -> Vec<f32> {
    let turn = |phase: usize, frequency: &f64| {
        let (sin, cos) = (phase as f64 * frequency).sin_cos();
        [(cos * scale) as f32, (sin * scale) as f32]
    };
    (0..phases).flat_map(|phase| frequencies.iter().flat_map(move |f| turn(phase, f))).collect()
}

impl RopeScaling {
    /// What a file of a family says.
    pub(super) fn read(
        gguf: &Gguf,
        family: &Family,
        key: &impl Fn(&str) -> String,
    ) -> Result<Self> {
        let factor = match gguf.f32(&key("rope.scaling.factor"))? {
            Some(factor) => Some(factor),
            None => gguf.f32(&key("rope.scale_linear"))?,
        };
        let kind = gguf.str(&key("rope.scaling.type"))?;
        let kind = kind.unwrap_or(if factor.is_some_and(|f| f != 1.0) { "linear" } else { "none" });
        let number = |name: &str, default: f32| -> Result<f32> {
            match gguf.f32(&key(name))?.unwrap_or(default) {
                value if value.is_finite() && value >= 0.0 => Ok(value),
                value => Err(Error::Unsupported(format!("{} is {value}", key(name)))),
            }
        };
        let factor = match factor.unwrap_or(1.0) {
            factor if factor.is_finite() && factor > 0.0 => factor,
            factor => {
                return Err(Error::Unsupported(format!("a rotary scaling factor of {factor}")));
            }
        };
        let original = "rope.scaling.original_context_length";
        match kind {
            "none" if gguf.tensor("rope_factors_long.weight").is_some() => Ok(Self::Long {
                n_ctx_orig: gguf.need_u32(&key(original))?,
                attn_factor: number("rope.scaling.attn_factor", 1.0)?,
            }),
            "none" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor }),
            "yarn" => Ok(Self::Yarn {
                factor,
                n_ctx_orig: match gguf.u32(&key(original))? {
                    Some(n) if n > 0 => n,
                    _ => gguf.need_u32(&key("context_length"))?,
                },
                beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
                ext_factor: number("rope.scaling.yarn_ext_factor", 1.0)?,
                attn_factor: number("rope.scaling.attn_factor", 1.0)?,
                log_multiplier: number("rope.scaling.yarn_log_multiplier", 0.0)?,
                rounded: family.yarn_rounded,
            }),
            other => Err(Error::Unsupported(format!(
                "rotary scaling of type {}; none, linear, yarn and rope_freqs work",
                shown(other, 80)
            ))),
        }
    }
}
