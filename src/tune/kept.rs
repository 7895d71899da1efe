//! Answers of earlier loads: text that a file or a browser's storage holds.
use crate::ops::Variant;
use std::collections::BTreeMap;

/// The engine that an answer is of: another may have other kernels.
const ENGINE: &str = concat!("brooklet ", env!("CARGO_PKG_VERSION"));
/// Answers at most: adapters, drivers and formats of one machine.
const MOST: usize = 64;

/// What the answers of this engine for one adapter begin with.
pub(super) fn adapter_key(name: &str, driver: &str, backend: &str) -> String {
    format!("{name} | {driver} | {backend} | {ENGINE} | ")
}

/// What is remembered, by device, driver, engine and type of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<String, Variant>);

impl Kept {
    /// Reads what was kept. What cannot be read is nothing.
    pub fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap_or_default())
    }

    /// To be kept.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap_or_default()
    }

    /// The answers of this engine for one adapter, by type of weights.
    pub fn of<'a>(
        &'a self,
        name: &str,
        driver: &str,
        backend: &str,
    ) -> impl Iterator<Item = (&'a str, Variant)> {
        let start = adapter_key(name, driver, backend);
        self.0.iter().filter_map(move |(key, variant)| Some((key.strip_prefix(&start)?, *variant)))
    }

    pub(super) fn get(&self, key: &str) -> Option<Variant> {
        self.0.get(key).copied()
    }

    pub(super) fn put(&mut self, key: String, variant: Variant) {
        if self.0.len() >= MOST {
            let engine = format!(" | {ENGINE} | ");
            self.0.retain(|key, _| key.contains(&engine));
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, variant);
    }
}
