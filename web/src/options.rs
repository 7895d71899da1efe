//! Options as JavaScript gives them. What is left out is the library's default.
use brooklet::Result;
use brooklet::chat::{Chat, Script};
use brooklet::gpu::Gpu;
use brooklet::model::{CacheSettings, Config, KvType, Policy};
use brooklet::ops::ActivationType;
use brooklet::tune::Tune;
pub(crate) use brooklet::wire::{CacheOptions, StreamOptions};
use serde::Deserialize;

/// Tokens that can be taken back at least.
const SPARE: usize = 8;

/// The cache for a device, if it is known by now: a chunk that nobody has asked for is what suits it.
pub(crate) fn cache_settings(
    wanted: &CacheOptions,
    config: &Config,
    gpu: Option<&Gpu>,
) -> CacheSettings {
    let policy = wanted.policy.unwrap_or(Policy::Streaming);
    let default = CacheSettings::for_model(config, policy);
    let window = wanted.window.unwrap_or(default.window);
    let sized = CacheSettings { window, ..default };
    let usual = || gpu.map_or(default.chunk, |gpu| sized.usual_chunk(gpu));
    let chunk = wanted.chunk.unwrap_or_else(usual);
    // What a page has not taken is taken back: the ring keeps a little more than small chunks need.
    let spare = chunk.max(SPARE);
    let rolls = matches!(policy, Policy::Streaming | Policy::Window);
    CacheSettings {
        sinks: wanted.sinks.unwrap_or(default.sinks),
        window,
        chunk,
        kv: wanted.kv.unwrap_or(default.kv),
        activations: wanted.activations.unwrap_or(default.activations),
        ring: rolls.then(|| window.saturating_add(spare)),
        ..default
    }
}

/// `ConversationOptions` of `js/index.d.ts`, less what JavaScript sees to itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChatOptions {
    pub(crate) system: Option<String>,
    pub(crate) think: Option<bool>,
    pub(crate) window: Option<usize>,
    chunk: Option<usize>,
    kv: Option<KvType>,
    activations: Option<ActivationType>,
}

impl ChatOptions {
    /// The cache of a conversation with this script.
    pub(crate) fn settings(
        &self,
        script: &Script,
        config: &Config,
        gpu: &Gpu,
    ) -> Result<CacheSettings> {
        let default = CacheSettings::for_model(config, Policy::Streaming);
        let settings = CacheSettings {
            kv: self.kv.unwrap_or(default.kv),
            activations: self.activations.unwrap_or(default.activations),
            ..default
        };
        let capacity = self.window.map(|window| window.saturating_add(Chat::sinks(script)));
        // The chunk that suits the device is that of the window, which is known by then.
        let sized = Chat::cache(script, settings, capacity, config.n_ctx)?;
        let chunk = self.chunk.unwrap_or_else(|| sized.usual_chunk(gpu));
        let settings = CacheSettings { chunk, ..settings };
        let settings = Chat::cache(script, settings, capacity, config.n_ctx)?;
        settings.geometry()?;
        Ok(settings)
    }
}

/// `tune` of `LoadOptions`, and what the page has kept.
#[derive(Deserialize)]
pub(crate) struct TuneOptions {
    pub(crate) tune: Tune,
    pub(crate) kept: String,
}
