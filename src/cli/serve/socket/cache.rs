//! What a socket asks of the cache, held to what the server has.
use super::calls::Thrown;
use brooklet::model::{CacheSettings, Policy};
use brooklet::wire::CacheOptions;
use serde_json::{Value, json};

/// An error that says what the server has, where something else is wanted: it is fixed. Only of the chunk, which changes
/// no result, any will do.
pub(super) fn check(wanted: &CacheOptions, has: &CacheSettings) -> Result<(), Thrown> {
    let policy = wanted.policy.unwrap_or(Policy::Streaming);
    // A window without sinks has none, whatever is kept for them.
    let sinks = wanted.sinks.filter(|&sinks| policy != Policy::Window || sinks != 0);
    let other = |wanted: Option<usize>, has: usize| wanted.filter(|&wanted| wanted != has);
    let json = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let wrong = match () {
        () if !matches!(policy, Policy::Streaming | Policy::Window) => {
            Some(("policy", json(json!(policy)), "streaming and window work".to_owned()))
        }
        () if other(sinks, has.sinks).is_some() => {
            Some(("sinks", sinks.unwrap_or(0).to_string(), format!("it has {}", has.sinks)))
        }
        () if other(wanted.window, has.window).is_some() => {
            let window = wanted.window.unwrap_or(0).to_string();
            Some(("window", window, format!("it has {}", has.window)))
        }
        () if wanted.kv.is_some_and(|kv| kv != has.kv) => {
            let (kv, own) = (json(json!(wanted.kv)), json(json!(has.kv)));
            Some(("kv", kv, format!("it has {own}")))
        }
        () if wanted.activations.is_some_and(|own| own != has.activations) => {
            let (wanted, own) = (json(json!(wanted.activations)), json(json!(has.activations)));
            Some(("activations", wanted, format!("it has {own}")))
        }
        () => None,
    };
    wrong.map_or(Ok(()), |(name, found, works)| {
        Err(Thrown::option(format!(
            "{name} {found}: the cache is the server's, and {works}; brooklet serve --{name} starts it with another"
        )))
    })
}
