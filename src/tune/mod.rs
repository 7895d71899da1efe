//! Which of the kernels that compute the same a device is fastest with: by a short measurement when a model's format is
//! first loaded on it, kept from then on. Results differ between variants by rounding alone.
mod contest;
mod kept;

#[cfg(feature = "cli")]
pub use contest::Contender;
pub use kept::Kept;

use crate::Result;
use crate::format::{DType, Gguf};
use crate::gpu::Gpu;
use crate::model::Config;
use crate::ops::{Choice, Origin, Variant};
use std::time::Duration;

/// Whether to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// Never: what suits the kind of device.
    Off,
    /// Unless there is an answer already.
    #[default]
    On,
    /// In any case.
    Again,
}

/// The most common type of the layers' matrices, by bytes.
fn format_of(gguf: &Gguf) -> Result<Option<DType>> {
    let matrices: Vec<_> = gguf.layer_matrices().collect();
    let bytes = |id: u32| -> u64 {
        matrices.iter().filter(|other| other.type_id == id).map(|other| other.size).sum()
    };
    matrices.iter().max_by_key(|tensor| bytes(tensor.type_id)).map(|t| t.dtype()).transpose()
}

/// What an answer holds for: a device, its driver, this version of the engine, a type of weights.
fn key(gpu: &Gpu, dtype: DType) -> String {
    let Gpu { name, driver, backend, .. } = gpu;
    kept::adapter_key(name, driver, backend) + dtype.name()
}

/// The variant for a model: an answer in `kept`, or one that is measured and put there. Where the measurement came to no
/// verdict in its time, it is an earlier answer or what suits the kind of device, and nothing is kept.
pub async fn choose(
    gpu: &Gpu,
    gguf: &Gguf,
    config: &Config,
    tune: Tune,
    kept: &mut Kept,
) -> Result<Choice> {
    choose_within(gpu, gguf, config, tune, kept, contest::patience(gpu)).await
}

/// What each of the kernels that compute the same takes on this device with a model's most common type of weights, and
/// which of them it is to run. Nothing is kept. Empty for a model without matrices.
#[cfg(feature = "cli")]
pub async fn contest(gpu: &Gpu, gguf: &Gguf, config: &Config) -> Result<Vec<Contender>> {
    match format_of(gguf)? {
        Some(dtype) => gpu.answered(contest::told(gpu, dtype, config)).await,
        None => Ok(Vec::new()),
    }
}

/// The same, for contests of so long each.
pub(crate) async fn choose_within(
    gpu: &Gpu,
    gguf: &Gguf,
    config: &Config,
    tune: Tune,
    kept: &mut Kept,
    patience: Duration,
) -> Result<Choice> {
    let class = Choice { variant: Variant::of(gpu), origin: Origin::Class };
    let (Some(dtype), true) = (format_of(gguf)?, tune != Tune::Off) else { return Ok(class) };
    let key = key(gpu, dtype);
    // A file that somebody has changed must not make this device run what it cannot.
    let known = match kept.get(&key) {
        Some(variant) if variant.runs_on(gpu) => Some(variant),
        _ => None,
    };
    if let (Some(variant), Tune::On) = (known, tune) {
        return Ok(Choice { variant, origin: Origin::Kept });
    }
    let Some(variant) = contest::held(gpu, dtype, config, patience).await? else {
        return Ok(known.map_or(class, |variant| Choice { variant, origin: Origin::Kept }));
    };
    kept.put(key, variant);
    Ok(Choice { variant, origin: Origin::Measured })
}
