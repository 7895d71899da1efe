//! How much goes to the device at once, as the user says it.
use super::args::ShapeArgs;
use brooklet::gpu::Gpu;
use brooklet::model::CacheSettings;
use brooklet::session::Pace;
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, ValueEnum)]
enum PaceArg {
    /// By about a tenth of a second: it stops at once
    Interactive,
    /// By about half a second, where that gives more tokens a second
    Throughput,
}

#[derive(Args)]
pub(crate) struct PaceArgs {
    /// How far the device works ahead of what is shown
    #[arg(long, value_enum, default_value = "interactive")]
    pace: PaceArg,
}

impl PaceArgs {
    pub(crate) fn chosen(&self) -> Pace {
        match self.pace {
            PaceArg::Interactive => Pace::Interactive,
            PaceArg::Throughput => Pace::Throughput,
        }
    }
}

impl ShapeArgs {
    /// With the chunk that suits the device, where the user has no wish for another.
    pub(crate) fn suited(&self, settings: CacheSettings, gpu: &Gpu) -> CacheSettings {
        let chunk = self.chunk.unwrap_or_else(|| settings.usual_chunk(gpu));
        CacheSettings { chunk, ..settings }
    }
}
