//! What the cache folder keeps besides models: which kernels suit a device, and what its driver has compiled. All of it
//! can be lost or spoilt at any time; then it is made anew.
use brooklet::Result;
use brooklet::format::Gguf;
use brooklet::gpu::{AdapterChoice, Class, Gpu};
use brooklet::kept::{folder, keep};
use brooklet::model::Config;
use brooklet::ops::{Choice, Origin};
use brooklet::tune::{self, Kept, Tune};
use std::path::PathBuf;

fn file() -> Option<PathBuf> {
    folder().map(|folder| folder.join("tuning.json"))
}

/// The answers of earlier loads.
pub(crate) fn kept() -> Kept {
    let text = file().and_then(|file| std::fs::read_to_string(file).ok());
    text.map_or_else(Kept::default, |text| Kept::parse(&text))
}

/// Opens a device with what its driver has compiled before.
pub(crate) async fn open(adapter: AdapterChoice, class: Class) -> Result<Gpu> {
    match folder() {
        Some(folder) => Gpu::open_with(adapter, class, &folder.join("pipelines")).await,
        None => Gpu::open_as(adapter, class).await,
    }
}

/// The variant for a model on a device, by an answer that is kept or is from now on.
pub(crate) async fn choose(gpu: &Gpu, gguf: &Gguf, config: &Config, tune: Tune) -> Result<Choice> {
    let mut kept = kept();
    let choice = tune::choose(gpu, gguf, config, tune, &mut kept).await?;
    if let (Origin::Measured, Some(file)) = (choice.origin, file()) {
        // In a folder that cannot be written to, every load measures.
        let _ = keep(&file, kept.text().as_bytes());
    }
    Ok(choice)
}
