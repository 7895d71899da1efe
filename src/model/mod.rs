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
//! | `F` | feed-forward | | `E` | experts |
//! | `K` | experts that a token goes to | | | |
mod cache;
pub mod config;
mod family;
mod folded;
mod forward;
mod grouped;
mod heads;
mod identity;
mod kernels;
mod pass;
mod reading;
pub mod rope;
#[cfg(feature = "cli")]
mod score;
mod shift;
mod states;
mod tensors;
mod weights;

pub use crate::ops::KvType;
pub use cache::{Cache, CacheSettings, Policy, reduce};
pub use config::{
    Caps, Config, DeltaHeads, Experts, HeadNorms, LayerKind, Mixer, NormPlaces, Norms, Positions,
    Softmax,
};
pub use family::Scales;
#[cfg(feature = "cli")]
pub(crate) use forward::watched;
pub(crate) use forward::{Activations, Pass, Tokens};
pub use identity::Identity;
pub(crate) use kernels::Kernels;
pub use rope::{Rope, RopeLayout, RopeScaling};
#[cfg(feature = "cli")]
pub(crate) use score::Scoring;
pub(crate) use shift::Shifter;

use crate::Result;
use crate::format::{Gguf, Source};
use crate::gpu::Gpu;
use crate::ops::{ActivationType, Choice, Origin, Variant};
use folded::Folding;
use futures_util::future::try_join3;
use kernels::Needs;
use std::sync::Arc;
use std::time::Duration;
pub(crate) use tensors::Products;
use web_time::Instant;
use weights::Weights;

/// How a model is to be loaded.
pub struct LoadSettings {
    /// What its file says of it, or what the caller has made of that.
    pub config: Config,
    /// Which kernels multiply; by itself what suits the kind of device. See [`crate::tune`].
    pub variant: Option<Choice>,
    /// What sessions will be like; one that is otherwise compiles its kernels anew.
    pub kernels: KernelSettings,
}

/// What of a session's settings its kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// How keys and values are stored.
    pub kv: KvType,
    /// How products of one token take their inputs.
    pub activations: ActivationType,
    /// Whether a chunk has so many tokens that they are worth a tile.
    pub tiles: bool,
    /// Whether sessions share passes, each with a token of its own: see [`Session::several`](crate::session::Session::several).
    pub rows: bool,
}

/// Chunks of fewer tokens would leave most of a tile empty.
const FEW: usize = 16;

impl Default for KernelSettings {
    fn default() -> Self {
        Self {
            kv: KvType::default(),
            activations: ActivationType::default(),
            tiles: true,
            rows: false,
        }
    }
}

impl KernelSettings {
    /// Those of sessions with chunks of at most so many tokens.
    pub fn new(kv: KvType, activations: ActivationType, chunk: usize) -> Self {
        Self { kv, activations, tiles: chunk >= FEW, rows: false }
    }
}

impl From<&CacheSettings> for KernelSettings {
    fn from(settings: &CacheSettings) -> Self {
        Self::new(settings.kv, settings.activations, settings.chunk)
    }
}

impl LoadSettings {
    /// As the file says, and as is usual.
    pub fn new(config: Config) -> Self {
        Self { config, variant: None, kernels: KernelSettings::default() }
    }
}

/// When what was there, from the beginning of a load on. Weights come and kernels are compiled at the same time.
#[derive(Clone, Copy, Debug)]
pub struct LoadTimes {
    /// Every weight was handed to the device.
    pub weights: Duration,
    /// Every kernel was compiled.
    pub kernels: Duration,
}

/// A model on the GPU, to be shared by any number of sessions.
pub struct Model {
    /// The device it lives on.
    pub gpu: Arc<Gpu>,
    /// What its file says of it.
    pub config: Config,
    /// Which model it is: what a saved stream can be resumed with.
    pub identity: Identity,
    /// Which kernels multiply.
    pub variant: Choice,
    /// What its load took.
    pub times: LoadTimes,
    pub(crate) weights: Weights,
    products: Products,
    kernels: (KernelSettings, Arc<Kernels>),
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
        Self::with_settings(gpu, source, gguf, LoadSettings::new(config), progress).await
    }

    /// The same as the caller wants it.
    pub async fn with_settings(
        gpu: Arc<Gpu>,
        source: &impl Source,
        gguf: &Gguf,
        settings: LoadSettings,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        gpu.clone().answered(Self::made(gpu, source, gguf, settings, progress)).await
    }

    async fn made(
        gpu: Arc<Gpu>,
        source: &impl Source,
        gguf: &Gguf,
        settings: LoadSettings,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let start = Instant::now();
        let LoadSettings { config, variant, kernels: settings } = settings;
        let products = Products::of(gguf, &config)?;
        let variant = match variant {
            Some(variant) => variant,
            None => Choice { variant: Variant::of(&gpu), origin: Origin::Class },
        };
        let total: u64 = gguf.tensors.iter().map(|tensor| tensor.size).sum();
        let mut done = 0;
        let mut arrived = |bytes| {
            // Rows that serve twice come twice.
            done = total.min(done + bytes);
            progress(done, total);
        };
        let needs = Needs::new(&config, &products, variant.variant, settings);
        let kernels = Kernels::new(&gpu, needs);
        let folding = Folding::new(&gpu, &config, &products, variant.variant);
        let keeps = config.keeps_vectors(&products);
        let weights = async {
            let weights = Weights::load(&gpu, source, gguf, &config, keeps, &mut arrived).await?;
            Ok((weights, start.elapsed()))
        };
        // Kernels first: they are begun, and the weights are streamed while others compile.
        let (kernels, folding, (mut weights, streamed)) =
            try_join3(kernels, folding, weights).await?;
        gpu.check()?;
        weights.fold(&gpu, &config, &products, folding.as_ref())?;
        let identity = Identity::of(&gpu, gguf, &weights.output_norm.gain).await?;
        let compiled = gpu.last_compiled().map_or(Duration::ZERO, |at| at - start);
        let times = LoadTimes { weights: streamed, kernels: compiled };
        let kernels = (settings, Arc::new(kernels));
        Ok(Self { gpu, config, identity, variant, times, weights, products, kernels })
    }

    /// Its kernels for sessions of one kind.
    pub(crate) async fn kernels(&self, settings: KernelSettings) -> Result<Arc<Kernels>> {
        match &self.kernels {
            (made_for, kernels) if *made_for == settings => Ok(kernels.clone()),
            _ => {
                let (config, products) = (&self.config, &self.products);
                let needs = Needs::new(config, products, self.variant.variant, settings);
                Ok(Arc::new(Kernels::new(&self.gpu, needs).await?))
            }
        }
    }

    /// Bytes of weights that a step has to read: every matrix once, less the embedding where it is not the output, and of
    /// experts those that one token goes to.
    pub fn step_bytes(&self) -> u64 {
        self.weights.step_bytes(self.config.experts)
    }

    /// Bytes of weights on the GPU.
    pub fn bytes(&self) -> u64 {
        self.weights.bytes()
    }
}
