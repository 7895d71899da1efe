//! Options as JavaScript gives them. What is left out is the library's default.
use brooklet::gpu::Gpu;
use brooklet::model::{CacheSettings, Config, KvType, Policy};
use brooklet::ops::ActivationType;
use brooklet::session::Pace;
use brooklet::text::SamplerSettings;
use brooklet::tune::Tune;
use serde::Deserialize;

/// Tokens that can be taken back at least.
const SPARE: usize = 8;

/// `CacheOptions` of `js/index.d.ts`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CacheOptions {
    policy: Option<Policy>,
    sinks: Option<usize>,
    window: Option<usize>,
    chunk: Option<usize>,
    kv: Option<KvType>,
    activations: Option<ActivationType>,
}

impl CacheOptions {
    /// For a device, if it is known by now: a chunk that nobody has asked for is what suits it.
    pub(crate) fn settings(&self, config: &Config, gpu: Option<&Gpu>) -> CacheSettings {
        let policy = self.policy.unwrap_or(Policy::Streaming);
        let default = CacheSettings::for_model(config, policy);
        let window = self.window.unwrap_or(default.window);
        let sized = CacheSettings { window, ..default };
        let usual = || gpu.map_or(default.chunk, |gpu| sized.usual_chunk(gpu));
        let chunk = self.chunk.unwrap_or_else(usual);
        // What a page has not taken is taken back: the ring keeps a little more than small chunks need.
        let spare = chunk.max(SPARE);
        let rolls = matches!(policy, Policy::Streaming | Policy::Window);
        CacheSettings {
            sinks: self.sinks.unwrap_or(default.sinks),
            window,
            chunk,
            kv: self.kv.unwrap_or(default.kv),
            activations: self.activations.unwrap_or(default.activations),
            ring: rolls.then(|| window.saturating_add(spare)),
            ..default
        }
    }
}

/// `tune` of `LoadOptions`, and what the page has kept.
#[derive(Deserialize)]
pub(crate) struct TuneOptions {
    pub(crate) tune: Tune,
    pub(crate) kept: String,
}

/// `StreamOptions` of `js/index.d.ts`, less what JavaScript sees to itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StreamOptions {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: u64,
    #[serde(default)]
    pub(crate) pace: Pace,
    #[serde(default)]
    pub(crate) stop: Vec<String>,
    #[serde(default)]
    pub(crate) stop_at_eos: bool,
}

impl StreamOptions {
    pub(crate) fn sampler(&self) -> SamplerSettings {
        let default = SamplerSettings::default();
        SamplerSettings {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed,
            ..default
        }
    }
}
