//! What a socket asks of the cache, held to what the server has.
use super::calls::Thrown;
use brooklet::model::{CacheSettings, KvType, Policy};
use brooklet::ops::ActivationType;
use serde::Deserialize;
use serde_json::{Value, json};

/// `CacheOptions` of the package. What a server has is fixed: they can only be what it has.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CacheOptions {
    pub(super) policy: Option<Policy>,
    sinks: Option<usize>,
    window: Option<usize>,
    chunk: Option<usize>,
    kv: Option<KvType>,
    activations: Option<ActivationType>,
}

impl CacheOptions {
    /// An error that says what the server has, where that is something else.
    pub(super) fn check(&self, has: &CacheSettings) -> Result<(), Thrown> {
        let policy = self.policy.unwrap_or(Policy::Streaming);
        // A window without sinks has none, whatever is kept for them.
        let sinks = self.sinks.filter(|&sinks| policy != Policy::Window || sinks != 0);
        let other = |wanted: Option<usize>, has: usize| wanted.filter(|&wanted| wanted != has);
        let json = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let wrong = match () {
            () if !matches!(policy, Policy::Streaming | Policy::Window) => {
                Some(("policy", json(json!(policy)), "streaming and window work".to_owned()))
            }
            () if other(sinks, has.sinks).is_some() => {
                Some(("sinks", sinks.unwrap_or(0).to_string(), format!("it has {}", has.sinks)))
            }
            () if other(self.window, has.window).is_some() => {
                let window = self.window.unwrap_or(0).to_string();
                Some(("window", window, format!("it has {}", has.window)))
            }
            () if self.kv.is_some_and(|kv| kv != has.kv) => {
                let (kv, own) = (json(json!(self.kv)), json(json!(has.kv)));
                Some(("kv", kv, format!("it has {own}")))
            }
            () if self.activations.is_some_and(|own| own != has.activations) => {
                let (wanted, own) = (json(json!(self.activations)), json(json!(has.activations)));
                Some(("activations", wanted, format!("it has {own}")))
            }
            () => None,
        };
        // How many tokens of a prompt one pass takes changes no result.
        let _ = self.chunk;
        wrong.map_or(Ok(()), |(name, found, works)| {
            Err(Thrown::option(format!(
                "{name} {found}: the cache is the server's, and {works}; brooklet serve --{name} starts it with another"
            )))
        })
    }
}
