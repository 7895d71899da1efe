//! Products of many tokens with the matrices of experts: grouped by expert, and added up.
use super::Activations;
use crate::Result;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{
    Epilogue, ExpertTiles, ExpertWeights, ExpertsMany, GroupExperts, Product, SumExperts,
};
use futures_util::future::try_join3;

/// What a pass of many tokens does with experts.
pub(super) struct Grouped {
    pub(super) group: GroupExperts,
    experts: ExpertsMany,
    sum: SumExperts,
}

impl Grouped {
    /// Compiles the kernels of the given products.
    pub(super) async fn new(gpu: &Gpu, products: &[Product]) -> Result<Self> {
        let experts = ExpertsMany::new(gpu, ExpertTiles::of(gpu), products);
        let (group, experts, sum) =
            try_join3(GroupExperts::new(gpu), experts, SumExperts::new(gpu)).await?;
        Ok(Self { group, experts, sum })
    }

    /// Records a product of `from` into `out`, or added to it by the shares of what is chosen.
    pub(super) fn record(
        &self,
        r: &mut Recording,
        label: &str,
        epilogue: Epilogue,
        act: &Activations,
        [from, out]: [&Tensor; 2],
        weights: ExpertWeights<'_>,
    ) -> Result<()> {
        if epilogue != Epilogue::Add {
            return self.experts.record(r, label, epilogue, [from, &act.groups, out], weights);
        }
        let tensors = [from, &act.groups, &act.given];
        self.experts.record(r, label, Epilogue::Store, tensors, weights)?; // given [T, K, D]
        let tensors = [&act.frame, &act.given, &act.chosen, out];
        self.sum.record(r, format!("{label}_sum"), tensors)
    }
}
