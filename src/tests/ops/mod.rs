//! Every op on the GPU against its twin in `reference`.
mod cache_ops;
mod decode_ops;
mod epilogue_ops;
mod expert_ops;
mod few_ops;
mod fold_ops;
mod fused_ops;
mod grouped_ops;
mod int8_ops;
mod kept;
#[cfg(feature = "cli")]
mod memory;
mod norm_ops;
mod row_ops;
mod sample_op;
mod shift_op;
mod slice_ops;
mod softmax_start;
mod state_ops;
mod weight_ops;

use crate::format::DType;
use crate::gpu::{Gpu, Recording};
use crate::ops::{AttentionParams, HeadShape, RingParams, Start, Sums, Variant, head_terms};
use crate::tests::support::noise;
use pollster::block_on;

/// Runs what was recorded and waits for nothing: a read waits.
pub(super) fn run(gpu: &Gpu, recording: Recording) {
    recording.finish(gpu).unwrap().run(gpu, &[]);
}

/// Attention of so many heads, kv-heads and dimensions, of which so many are turned.
pub(super) fn attend(
    [heads, kv_heads, head_dim, rope_dim]: [u32; 4],
    ring: RingParams,
    scale: f32,
) -> AttentionParams {
    AttentionParams {
        heads,
        kv_heads,
        head_dim,
        rope_dim,
        ring,
        scale,
        cap: 0.0,
        forgets: 0,
        first: 0,
        span: 0,
        stride: 0,
    }
}

/// What scores are kept below where they are: it bends nearly all of them.
const CAP: f32 = 2.5;

/// What heads of this kind may be given beside their queries, in turn: ALiBi's slopes where they have some, and each of
/// the things that softmax starts from.
fn terms(shape: HeadShape, heads: u32, turn: usize) -> (Start, Vec<f32>) {
    let heads = heads as usize;
    let learned = noise(7, heads).iter().map(|z| 4.0 * z).collect();
    let start = [Start::Plain, Start::OffByOne, Start::Learned(learned)][turn % 3].clone();
    let terms = head_terms(heads, shape.alibi.then_some(8.0), &start);
    (start, terms)
}

/// Every pair of two switches.
fn flags() -> [[bool; 2]; 4] {
    [[false, false], [false, true], [true, false], [true, true]]
}

/// Every variant of the products that this device has.
fn variants(gpu: &Gpu) -> Vec<Variant> {
    Variant::all(gpu)
}

/// Which variants of the products are tried with which types of weights.
#[derive(Clone, Copy)]
enum Tried {
    /// Each variant with two types, F32 (which has loops of its own) and Q4_K (four bits, scales and minima), and each
    /// other type with one variant, by turns.
    ByTurns,
    /// Every variant with every type; of `./build.sh test --all`.
    Every,
}

impl Tried {
    fn of(self, gpu: &Gpu) -> Vec<(Variant, DType)> {
        let variants = variants(gpu);
        let turn = |i: usize| match (self, DType::ALL[i]) {
            (Self::Every, _) | (_, DType::F32 | DType::Q4K) => &variants[..],
            (Self::ByTurns, _) => &variants[i % variants.len()..][..1],
        };
        let types = DType::ALL.into_iter().enumerate();
        types.flat_map(|(i, dtype)| turn(i).iter().map(move |&variant| (variant, dtype))).collect()
    }
}

#[test]
fn every_variant_and_every_type_has_its_turn() {
    let gpu = crate::tests::support::gpu();
    let (turns, every) = (Tried::ByTurns.of(&gpu), Tried::Every.of(&gpu));
    assert_eq!(every.len(), variants(&gpu).len() * DType::ALL.len());
    for dtype in DType::ALL {
        assert!(turns.iter().any(|&(_, tried)| tried == dtype), "{dtype}");
    }
    for variant in variants(&gpu) {
        let tried = turns.iter().filter(|&&(tried, _)| tried == variant).count();
        assert!(tried > 2, "{variant}: {tried}");
    }
}

/// Every way of adding up that this device has.
fn sums(gpu: &Gpu) -> Vec<Sums> {
    match Sums::of(gpu) {
        Sums::Shared => vec![Sums::Shared],
        Sums::Subgroup => vec![Sums::Shared, Sums::Subgroup],
    }
}

#[test]
fn devices_whose_workgroups_are_one_subgroup_add_up_by_it() {
    let gpu = crate::tests::support::gpu();
    // As a device of another class it may say more of its subgroups than is so.
    let own = gpu.name.split(" as ").next();
    let adapters = block_on(crate::gpu::adapters());
    let own = adapters.into_iter().find(|adapter| Some(&*adapter.name) == own).unwrap().tier;
    let whole = gpu.tier.subgroups && gpu.tier.lanes() == own.subgroup_size[0];
    let expected = if whole { Sums::Subgroup } else { Sums::Shared };
    // It was tried out on the device: the kernel and its twin agree here, or this driver is a find.
    assert_eq!(Sums::of(&gpu), expected, "{:?}", gpu.tier);
}
