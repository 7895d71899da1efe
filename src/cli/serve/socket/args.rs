//! The arguments of calls.
#[cfg(test)]
use super::calls::read;
use brooklet::model::Policy;
use brooklet::wire::{CacheOptions, StreamOptions};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadArgs {
    #[serde(rename = "key")]
    pub(super) _key: Option<String>,
    pub(super) streams: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct TextArgs {
    pub(super) text: String,
}

#[derive(Deserialize)]
pub(super) struct BeginArgs {
    pub(super) prompt: String,
    pub(super) settings: StreamOptions,
}

#[derive(Deserialize)]
pub(super) struct StopArgs {
    #[serde(default)]
    pub(super) unseen: usize,
}

#[derive(Deserialize)]
pub(super) struct PolicyArgs {
    pub(super) policy: Policy,
}

#[derive(Deserialize)]
pub(super) struct ResetArgs {
    pub(super) cache: Option<CacheOptions>,
}

#[derive(Deserialize)]
pub(super) struct IdArgs {
    pub(super) id: u64,
}

/// Whether the arguments are those of a call.
#[cfg(test)]
pub(super) fn is_read(args: &serde_json::Value) -> bool {
    read::<ResetArgs>("", args.clone()).is_ok()
        | read::<LoadArgs>("", args.clone()).is_ok()
        | read::<TextArgs>("", args.clone()).is_ok()
        | read::<BeginArgs>("", args.clone()).is_ok()
        | read::<StopArgs>("", args.clone()).is_ok()
        | read::<PolicyArgs>("", args.clone()).is_ok()
}
