//! One kernel file joined with each format's library.

/// `[(DType, KernelSource); 13]` of a kernel file that reads weights. The names end in `$suffix`; with one they need
/// subgroups. `$nibbles`: the library that multiplies four-bit numbers. `$rows`: that of the loop over a row, where F32 has
/// one of its own.
macro_rules! for_every_format {
    ($stem:literal, $suffix:literal, $nibbles:literal, $(rows $rows:literal f32 $f32:literal,)? [$($lib:literal),*], $bindings:expr, $params:ty) => {
        for_every_format!(@ $stem, $suffix, !$suffix.is_empty(), [$($lib),*], $bindings, $params;
            F32 "f32" [$($f32,)? "lib/plain.wgsl"],
            F16 "f16" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"],
            BF16 "bf16" [$($rows,)? "lib/plain.wgsl"],
            Q4_0 "q4_0" [$($rows,)? $nibbles, "lib/unpack_half.wgsl"],
            Q4_1 "q4_1" [$($rows,)? $nibbles, "lib/unpack_half.wgsl"],
            Q5_0 "q5_0" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"],
            Q5_1 "q5_1" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"],
            Q8_0 "q8_0" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"],
            Q2K "q2_k" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"],
            Q3K "q3_k" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"],
            Q4K "q4_k" [$($rows,)? $nibbles, "lib/scale_min.wgsl", "lib/unpack_half.wgsl"],
            Q5K "q5_k" [$($rows,)? "lib/plain.wgsl", "lib/scale_min.wgsl", "lib/unpack_half.wgsl"],
            Q6K "q6_k" [$($rows,)? "lib/plain.wgsl", "lib/unpack_half.wgsl"])
    };
    (@ $stem:literal, $suffix:literal, $subgroups:expr, $libs:tt, $bindings:expr, $params:ty; $($dtype:ident $format:literal $more:tt),*) => {
        [$((
            $crate::format::DType::$dtype,
            $crate::gpu::KernelSource {
                name: concat!($stem, "_", $format, $suffix),
                wgsl: for_every_format!(% $stem $format $libs $more),
                bindings: $bindings,
                params_size: size_of::<$params>() as u64,
                subgroups: $subgroups,
            },
        )),*]
    };
    (% $stem:literal $format:literal [$($lib:literal),*] [$($more:literal),*]) => {
        concat!(
            $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $lib)), "\n",)*
            $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $more)), "\n",)*
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/lib/", $format, ".wgsl")), "\n",
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $stem, ".wgsl")),
        )
    };
}
pub(super) use for_every_format;

/// `[(DType, KernelSource); 9]`: the same of the types whose weights are integers, for activations in bytes. Not Q2_K:
/// rounding costs too much beside so few bytes of weights.
macro_rules! for_every_integer_format {
    ($stem:literal, $suffix:literal, $subgroups:literal, $libs:tt, $bindings:expr, $params:ty) => {
        for_every_format!(@ $stem, $suffix, $subgroups, $libs, $bindings, $params;
            Q4_0 "q4_0" ["lib/unpack_half.wgsl"],
            Q4_1 "q4_1" ["lib/unpack_half.wgsl"],
            Q5_0 "q5_0" ["lib/unpack_half.wgsl"],
            Q5_1 "q5_1" ["lib/unpack_half.wgsl"],
            Q8_0 "q8_0" ["lib/unpack_half.wgsl"],
            Q3K "q3_k" ["lib/unpack_half.wgsl"],
            Q4K "q4_k" ["lib/scale_min.wgsl", "lib/unpack_half.wgsl"],
            Q5K "q5_k" ["lib/scale_min.wgsl", "lib/unpack_half.wgsl"],
            Q6K "q6_k" ["lib/unpack_half.wgsl"])
    };
}
pub(super) use for_every_integer_format;

use crate::format::DType;
use crate::gpu::{Gpu, Kernel, KernelSource};
use crate::{Error, Result};
use futures_util::future::try_join_all;

/// The compiled kernels of a file, for the types a model uses.
pub(super) struct ByFormat(Vec<(DType, Kernel)>);

impl ByFormat {
    pub(super) async fn new(
        gpu: &Gpu,
        sources: &[(DType, KernelSource)],
        dtypes: &[DType],
        overrides: &[(&'static str, f64)],
    ) -> Result<Self> {
        let wanted = sources.iter().filter(|(dtype, _)| dtypes.contains(dtype));
        let made = wanted.map(async |(dtype, source)| {
            Kernel::new(gpu, *source, overrides).await.map(|kernel| (*dtype, kernel))
        });
        Ok(Self(try_join_all(made).await?))
    }

    pub(super) fn get(&self, dtype: DType) -> Result<&Kernel> {
        let found = self.0.iter().find(|(have, _)| *have == dtype).map(|(_, kernel)| kernel);
        found.ok_or_else(|| Error::Unsupported(format!("{dtype}: no kernel was made for it")))
    }
}
