//! Which kernels tests have run on which device, with their overrides: a line each in the file that `BROOKLET_RAN` names.
use super::{Gpu, KernelSource};
use std::collections::HashSet;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

static SEEN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// What a kernel is called where those that differ in their overrides are told apart.
pub(crate) fn with_overrides(name: &str, overrides: &[(&'static str, f64)]) -> String {
    let overrides = overrides.iter().map(|(name, value)| format!(" {name}={value}"));
    std::iter::once(name.to_owned()).chain(overrides).collect()
}

/// Notes what a device is about to run.
pub(super) fn note(gpu: &Gpu, source: &KernelSource, overrides: &[(&'static str, f64)]) {
    let Some(path) = std::env::var_os("BROOKLET_RAN") else { return };
    let line = format!("{} {}\t{}\n", gpu.name, gpu.driver, with_overrides(source.name, overrides));
    if SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("BROOKLET_RAN names a file");
    }
}
