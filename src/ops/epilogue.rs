//! What becomes of a product, and the kernels that are compiled for it.
use super::formats::{ByFormat, ForFormats};
use crate::format::DType;
use crate::gpu::{Gpu, Kernel};
use crate::{Error, Result};
use futures_util::future::try_join_all;

/// What becomes of a product. The numbers are those of `shaders/lib/epilogue.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// y = product
    Store = 0,
    /// y += product
    Add = 1,
    /// y = silu(even rows) * odd rows
    SwiGlu = 2,
    /// y = gelu(product), by the error function
    Gelu = 3,
    /// y = gelu(product), by the approximation with tanh
    GeluTanh = 4,
    /// y = gelu(even rows) * odd rows, by the approximation with tanh
    GeGluTanh = 5,
    /// y = g sigmoid(1.702 g) * (u + 1) with g the even rows, 7 at most, and u the odd ones, from -7 to 7
    SwiGluClamped = 6,
}

impl Epilogue {
    /// Every epilogue there is.
    pub const ALL: [Self; 7] = [
        Self::Store,
        Self::Add,
        Self::SwiGlu,
        Self::Gelu,
        Self::GeluTanh,
        Self::GeGluTanh,
        Self::SwiGluClamped,
    ];

    /// Whether even rows are a gate of the odd ones, so that y has half as many elements as the product.
    pub fn gated(self) -> bool {
        matches!(self, Self::SwiGlu | Self::GeGluTanh | Self::SwiGluClamped)
    }

    /// Elements of y that a product of so many rows gives.
    pub fn outputs(self, rows: usize) -> usize {
        if self.gated() { rows / 2 } else { rows }
    }
}

/// What is compiled for: an epilogue and a type of weights.
pub type Product = (Epilogue, DType);

/// The compiled kernels of a file, for the products a model has.
pub(super) struct ByEpilogue(Vec<(Epilogue, ByFormat)>);

impl ByEpilogue {
    pub(super) async fn new(
        gpu: &Gpu,
        sources: &[ForFormats],
        products: &[Product],
        overrides: &[(&'static str, f64)],
    ) -> Result<Self> {
        let made = Epilogue::ALL.into_iter().map(async |epilogue| {
            let of_it = products.iter().filter(|(e, _)| *e == epilogue);
            let dtypes: Vec<DType> = of_it.map(|(_, dtype)| *dtype).collect();
            let overrides = [overrides, &[("EPILOGUE", f64::from(epilogue as u32))]].concat();
            let kernels = ByFormat::new(gpu, sources, &dtypes, &overrides).await?;
            Ok::<_, Error>((epilogue, kernels))
        });
        Ok(Self(try_join_all(made).await?))
    }

    pub(super) fn get(&self, epilogue: Epilogue, dtype: DType) -> Result<&Kernel> {
        let found = self.0.iter().find(|(have, _)| *have == epilogue);
        let none = || Error::Unsupported(format!("{epilogue:?}: no kernel was made for it"));
        found.ok_or_else(none)?.1.get(dtype)
    }
}
