//! The model: config, weights, cache, forward pass.
//!
//! Dimensions, as every comment and error names them:
//!
//! | letter | meaning | | letter | meaning |
//! |---|---|---|---|---|
//! | `D` | embedding | | `V` | vocabulary |
//! | `H` | query heads | | `T` | tokens of this pass |
//! | `KV` | key and value heads | | `S` | sinks |
//! | `HD` | size of a head | | `W` | window, the current token included |
//! | `R` | turned dimensions of a head | | `N` | slots of the ring |
//! | `F` | feed-forward | | | |
mod cache;
pub mod config;
mod forward;
mod shapes;
mod weights;

pub use cache::{Cache, CacheSettings, KvType, Policy, reduce};
pub use config::{Config, Rope, RopeLayout, RopeScaling};
pub(crate) use forward::{Activations, Kernels, Pass};

use crate::Result;
use crate::format::{Gguf, Source};
use crate::gpu::Gpu;
use std::sync::Arc;
use weights::Weights;

/// A model on the GPU, to be shared by any number of sessions.
pub struct Model {
    /// The device it lives on.
    pub gpu: Arc<Gpu>,
    /// What its file says of it.
    pub config: Config,
    pub(crate) weights: Weights,
}

impl Model {
    /// Streams the model of a file to the GPU. `progress` is told bytes done and bytes in all.
    pub async fn load(
        gpu: Arc<Gpu>,
        source: &impl Source,
        gguf: &Gguf,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let config = Config::from_gguf(gguf)?;
        Self::with_config(gpu, source, gguf, config, progress).await
    }

    /// The same with a config that the caller has changed.
    pub async fn with_config(
        gpu: Arc<Gpu>,
        source: &impl Source,
        gguf: &Gguf,
        config: Config,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let total = gguf.tensors.iter().map(|tensor| tensor.size).sum();
        let mut done = 0;
        let mut arrived = |bytes| {
            done += bytes;
            progress(done, total);
        };
        let weights = Weights::load(&gpu, source, gguf, &config, &mut arrived).await?;
        gpu.check()?;
        Ok(Self { gpu, config, weights })
    }

    /// Bytes of weights that a step has to read: every matrix once, less the embedding where it is not the output.
    pub fn step_bytes(&self) -> u64 {
        self.weights.step_bytes()
    }

    /// Bytes of weights on the GPU.
    pub fn bytes(&self) -> u64 {
        self.weights.bytes()
    }
}
