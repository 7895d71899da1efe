//! A kernel file that reads weights, joined with what each format needs.
use crate::format::{DType, Format, Numbers};
use crate::gpu::{Access, Gpu, Kernel, KernelSource};
use crate::shaders::{Files, Wgsl, files};
use crate::{Error, Result};
use futures_util::future::try_join_all;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// A kernel file of products or of look-ups: a kernel for every type.
#[derive(Clone, Copy)]
pub struct ForFormats {
    /// The file's stem, and the file.
    pub(super) stem: &'static str,
    pub(super) file: Files,
    /// What the names end in; with anything they need subgroups, unless it is the way of bytes.
    pub(super) suffix: &'static str,
    /// What it needs whatever the type.
    pub(super) libraries: Files,
    /// What it needs for a type's numbers.
    pub(super) by_numbers: ByNumbers,
    /// See `KernelSource`.
    pub(super) bindings: &'static [Access],
    pub(super) params_size: u64,
    pub(super) subgroups: bool,
}

/// Libraries for types whose numbers are multiplied in different ways; none where a type has no such kernel.
#[derive(Clone, Copy)]
pub(super) struct ByNumbers {
    pub(super) whole: Option<Files>,
    pub(super) unpacked: Option<Files>,
    pub(super) integers: Option<Files>,
    pub(super) nibbles: Option<Files>,
}

impl ByNumbers {
    /// One list for every type.
    const fn same(all: Option<Files>) -> Self {
        Self { whole: all, unpacked: all, integers: all, nibbles: all }
    }

    /// Every type is unpacked and multiplied.
    pub(super) const PLAIN: Self = Self::same(Some(files!["lib/plain.wgsl"]));
    /// The same in a loop over four rows, where F32 has one of its own.
    pub(super) const FOUR_ROWS: Self = Self {
        whole: Some(files!["lib/four_rows_floats.wgsl", "lib/plain.wgsl"]),
        ..Self::same(Some(files!["lib/four_rows.wgsl", "lib/plain.wgsl"]))
    };
    /// Numbers of four bits are multiplied where they lie.
    pub(super) const IN_PLACE: Self =
        Self { nibbles: Some(files!["lib/nibbles.wgsl"]), ..Self::PLAIN };
    /// Integers alone, with activations in bytes.
    pub(super) const BYTES: Self =
        Self { whole: None, unpacked: None, ..Self::same(Some(files!["lib/int8.wgsl"])) };

    fn of(&self, numbers: Numbers) -> Option<Files> {
        match numbers {
            Numbers::Whole => self.whole,
            Numbers::Unpacked => self.unpacked,
            Numbers::Integers => self.integers,
            Numbers::Nibbles => self.nibbles,
        }
    }
}

/// `ForFormats` of a kernel file by its stem.
macro_rules! for_formats {
    ($stem:literal, $suffix:literal, $by_numbers:ident, [$($library:literal),* $(,)?], $bindings:expr, $params:ty) => {
        $crate::ops::formats::ForFormats {
            stem: $stem,
            file: $crate::shaders::files![concat!($stem, ".wgsl")],
            suffix: $suffix,
            libraries: $crate::shaders::files![$($library),*],
            by_numbers: $crate::ops::formats::ByNumbers::$by_numbers,
            bindings: $bindings,
            params_size: size_of::<$params>() as u64,
            subgroups: $crate::ops::formats::needs_subgroups($suffix),
        }
    };
}
pub(super) use for_formats;

/// Kernels whose names end in anything but this need subgroups.
pub(super) const fn needs_subgroups(suffix: &str) -> bool {
    !matches!(suffix.as_bytes(), b"" | b"_int8")
}

impl ForFormats {
    /// The kernel of one type, if it has one.
    pub fn of(&self, dtype: DType) -> Option<KernelSource> {
        let Format { kernels, numbers, wgsl, .. } = dtype.format();
        let by_numbers = self.by_numbers.of(*numbers)?;
        Some(KernelSource {
            name: kept(format!("{}_{kernels}{}", self.stem, self.suffix)),
            wgsl: Wgsl::joined([self.libraries, by_numbers, wgsl, self.file]),
            bindings: self.bindings,
            params_size: self.params_size,
            subgroups: self.subgroups,
        })
    }

    /// The kernels of all types that have one; what two types share is there once.
    pub fn all(&self) -> Vec<KernelSource> {
        let mut all: Vec<_> = DType::ALL.into_iter().filter_map(|dtype| self.of(dtype)).collect();
        all.dedup_by_key(|source| source.name);
        all
    }
}

/// A name is made once, and kept as long as the program: there are a few hundred.
pub(super) fn kept(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(&*name) {
        return known;
    }
    let name = name.leak();
    names.insert(name);
    name
}

/// The compiled kernels of a file, for the types a model uses.
pub(super) struct ByFormat(Vec<(DType, Kernel)>);

impl ByFormat {
    /// Of each type the first of `sources` that has it.
    pub(super) async fn new(
        gpu: &Gpu,
        sources: &[ForFormats],
        dtypes: &[DType],
        overrides: &[(&'static str, f64)],
    ) -> Result<Self> {
        let source = |dtype| Some((dtype, sources.iter().find_map(|source| source.of(dtype))?));
        let wanted = DType::ALL.into_iter().filter(|dtype| dtypes.contains(dtype));
        let made = wanted.filter_map(source).map(async |(dtype, source)| {
            Kernel::new(gpu, source, overrides).await.map(|kernel| (dtype, kernel))
        });
        Ok(Self(try_join_all(made).await?))
    }

    pub(super) fn get(&self, dtype: DType) -> Result<&Kernel> {
        let found = self.0.iter().find(|(have, _)| *have == dtype).map(|(_, kernel)| kernel);
        found.ok_or_else(|| Error::Unsupported(format!("{dtype}: no kernel was made for it")))
    }
}
