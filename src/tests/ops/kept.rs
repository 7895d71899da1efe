//! Keys and values as the cache has them, for tests of the ops that read or store them.
use crate::gpu::{Gpu, Tensor};
use crate::ops::KvType;
use crate::reference::{self, KvLayout};
use crate::tests::support::assert_close;

/// As the cache stores it: words, and the numbers they stand for.
pub(super) fn stored(values: &[f32], layout: KvLayout) -> (Vec<u32>, Vec<f32>) {
    let words = layout.words(values);
    let numbers = layout.values(&words, values.len() / (layout.kv_heads * layout.head_dim));
    (words, numbers)
}

/// A cache of so many slots.
pub(super) fn uploaded(gpu: &Gpu, layout: KvLayout, slots: usize, words: &[u32]) -> Tensor {
    let shape = layout.kv.shape(slots, layout.kv_heads, layout.head_dim);
    Tensor::upload(gpu, "kv", &shape, words).unwrap()
}

/// What a half, or a byte, leaves of a number of about 1.
pub(super) fn rounding(kv: KvType) -> f32 {
    if kv == KvType::F32 { 1e-6 } else { 1e-3 }
}

/// Found numbers as expected, but for a few of blocks: what is about halfway between two quants may become either.
pub(super) fn assert_stored(
    what: &str,
    kv: KvType,
    found: &[f32],
    expected: &[f32],
    (atol, rtol): (f32, f32),
) {
    if !kv.in_blocks() {
        return assert_close(what, found, expected, atol, rtol);
    }
    let off =
        |(found, expected): &(f32, f32)| (found - expected).abs() > atol + rtol * expected.abs();
    let mut apart = 0;
    for (found, expected) in found.chunks(32).zip(expected.chunks(32)) {
        let most = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let step = most / if kv == KvType::Q8_0 { 127.0 } else { 7.0 };
        assert_close(what, found, expected, 1.001 * step + atol, rtol);
        apart += found.iter().copied().zip(expected.iter().copied()).filter(off).count();
    }
    assert!(apart * 1000 <= found.len(), "{what}: {apart} of {} are a step apart", found.len());
}

/// What the twin stored, rounded as the cache does; what was there before is so already.
pub(super) fn kept_again(kv: KvType, x: &[f32], old: &[f32]) -> Vec<f32> {
    match kv {
        KvType::F32 => x.to_vec(),
        KvType::F16 => x.iter().map(|&x| reference::half(x)).collect(),
        KvType::Q8_0 | KvType::Q4_0 => {
            let blocks = x.chunks(32).zip(old.chunks(32));
            blocks
                .flat_map(|(x, old)| if x == old { old.to_vec() } else { reference::kept(kv, x) })
                .collect()
        }
    }
}
