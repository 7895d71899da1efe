//! `--activations`.
use brooklet::ops::ActivationType;
use clap::{Args, ValueEnum};

#[derive(Args)]
pub(crate) struct ActivationsArgs {
    /// What products of one token multiply
    #[arg(long, value_enum, default_value = "f32", help_heading = "Speed")]
    activations: ActivationsArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum ActivationsArg {
    /// Their inputs as they are
    F32,
    /// Inputs rounded to bytes: fewer instructions on many GPUs, and another result (docs/performance.md)
    Int8,
}

impl ActivationsArgs {
    pub(crate) fn chosen(&self) -> ActivationType {
        match self.activations {
            ActivationsArg::F32 => ActivationType::F32,
            ActivationsArg::Int8 => ActivationType::Int8,
        }
    }
}
