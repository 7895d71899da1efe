//! attention_one and attention_join against the twins of what they fuse: rope_store, then attention.
use super::cache_ops::{numbers, stored};
use super::{flags, run, sums};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::model::reduce;
use crate::ops::{
    AttentionOne, AttentionOneParams, AttentionParams, FRAME, HeadShape, RingParams,
    RopeStoreParams, Sums, splits,
};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

/// (S, W, N, position): the first token, a sink, filling, full, gone round; one split of the cache and several, the
/// token's own slot in the first, in one between and in the last; splits that hold nothing yet; far beyond 2^32.
const RINGS: [(u32, u32, u32, u64); 11] = [
    (4, 8, 8, 0),
    (4, 8, 12, 3),
    (4, 8, 12, 11),
    (0, 16, 20, 1000),
    (1, 5, 8, (1 << 33) + 7),
    (4, 124, 124, 127),
    (4, 200, 263, 150),
    (4, 300, 363, 366),
    (4, 300, 363, 4 + 363 + 10),
    (3, 200, 263, 5_000_000_001),
    (5, 290, 353, 5 + 353 * 7 + 352),
];

/// (H, KV, HD, R): groups of one, three, four and eight, and of two; all turned and a part.
const SHAPES: [(u32, u32, u32, u32); 5] =
    [(2, 2, 8, 8), (3, 1, 64, 64), (4, 1, 32, 16), (16, 2, 16, 16), (4, 2, 32, 32)];

/// Each shape with two of the four ways to turn and to store, so that it meets each way to turn and each to store.
#[test]
fn attention_of_one_token() {
    let [neither, halves, neox, both] = flags();
    let by_turns = [[neither, both], [halves, neox]];
    attention_one((0..SHAPES.len()).flat_map(|i| by_turns[i % 2].map(|way| (way, SHAPES[i]))));
}

#[test]
#[ignore = "every shape turned and stored in every way: ./build.sh test --all"]
fn attention_of_one_token_in_every_way() {
    attention_one(flags().into_iter().flat_map(|way| SHAPES.map(|shape| (way, shape))));
}

fn attention_one(cases: impl Iterator<Item = ([bool; 2], (u32, u32, u32, u32))>) {
    let gpu = gpu();
    let whole = sums(&gpu).contains(&Sums::Subgroup);
    let lanes = gpu.tier.lanes();
    let mut tried = 0;
    for ([neox, kv_f16], shape) in cases {
        let (heads, kv_heads, head_dim, _) = shape;
        let sharing = (heads / kv_heads) as usize;
        let heads = HeadShape { head_dim: head_dim as usize, sharing, kv_f16 };
        for sums in sums(&gpu) {
            let op = block_on(AttentionOne::new(&gpu, heads, neox, sums)).unwrap();
            let fits = sums == Sums::Subgroup && head_dim / 8 <= lanes;
            assert_eq!(op.is_some(), fits, "{heads:?} with {sums:?} and {lanes} lanes");
            let Some(op) = op else { continue };
            for (i, ring) in RINGS.into_iter().enumerate() {
                check(&gpu, &op, [neox, kv_f16, i % 2 == 0], 1.0, shape, ring);
                tried += 1;
            }
            // A key and a value beyond what a half can be.
            check(&gpu, &op, [neox, kv_f16, true], 1e6, shape, RINGS[2]);
        }
    }
    assert!(tried > 0 || !whole, "a device with subgroups runs the fused kernel");
}

fn check(
    gpu: &Gpu,
    op: &AttentionOne,
    [neox, kv_f16, kept]: [bool; 3],
    gain: f32,
    (heads, kv_heads, head_dim, rope_dim): (u32, u32, u32, u32),
    (sinks, window, slots, n): (u32, u32, u32, u64),
) {
    let ring = RingParams { sinks, window, slots };
    let what = format!(
        "H {heads} KV {kv_heads} HD {head_dim} {ring:?} n {n} neox {neox} f16 {kv_f16} kept {kept} \
         gain {gain}"
    );
    // not 1/sqrt(HD), so that a kernel with its own idea of it fails; sharp enough to matter
    let scale = 0.7;
    let [h, kv, hd, half] = [heads, kv_heads, head_dim, rope_dim / 2].map(|n| n as usize);
    let held = (sinks + slots) as usize;
    let mut qkv = noise(21, (h + 2 * kv) * hd);
    qkv[h * hd..].iter_mut().for_each(|x| *x *= gain);
    let turn = |phase: u64, pair: usize| {
        let (sin, cos) = (phase as f64 * 0.3 / (1.0 + pair as f64)).sin_cos();
        (cos, sin)
    };
    let turns: Vec<f32> = (0..ring.phases() as u64)
        .flat_map(|phase| (0..half).map(move |pair| turn(phase, pair)))
        .flat_map(|(cos, sin)| [cos as f32, sin as f32])
        .collect();
    let (k_words, mut k) = stored(&noise(22, held * kv * hd), kv_f16);
    let (v_words, mut v) = stored(&noise(23, held * kv * hd), kv_f16);
    let mut q = vec![0.0; 3 * h * hd];
    let params = RopeStoreParams { heads, kv_heads, head_dim, rope_dim, ring };
    reference::rope_store(params, neox, n, &qkv, turn, [&mut q, &mut k, &mut v]);
    if kv_f16 {
        k.iter_mut().chain(&mut v).for_each(|x| *x = reference::half(*x));
    }

    let upload =
        |name: &str, shape: &[usize], data: &[f32]| Tensor::upload(gpu, name, shape, data).unwrap();
    let words = k_words.len() / held;
    let frame = [reduce(n, ring), 1, u32::from(kept), 0];
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &frame).unwrap();
    let qkv = upload("qkv", &[1, (h + 2 * kv) * hd], &qkv);
    let turns = upload("turns", &[ring.phases(), half, 2], &turns);
    let gpu_k = Tensor::upload(gpu, "k", &[held, words], &k_words).unwrap();
    let gpu_v = Tensor::upload(gpu, "v", &[held, words], &v_words).unwrap();
    // What is not written shows: also what the join takes from a split that holds nothing.
    let count = splits(ring);
    let parts = vec![f32::NAN; count as usize * h * (hd + 2)];
    let parts = upload("parts", &[count as usize, h, hd + 2], &parts);
    let out = upload("out", &[1, h * hd], &vec![f32::NAN; h * hd]);
    let mut recording = Recording::default();
    let one =
        AttentionOneParams { heads, kv_heads, head_dim, rope_dim, ring, scale, splits: count };
    let tensors = [&frame, &qkv, &turns, &gpu_k, &gpu_v, &parts, &out];
    op.record(&mut recording, "test", one, tensors).unwrap();
    run(gpu, recording);

    // The cache as it now is: the token's own in its place, all else as it was.
    let tolerance = if kv_f16 { 1e-3 } else { 1e-6 };
    // A half has 11 bits.
    let (tolerance, relative) = match gain > 1.0 {
        true => (1e-6 * gain, tolerance),
        false => (tolerance, 1e-5),
    };
    let read = |tensor: &Tensor| numbers(&block_on(tensor.read(gpu)).unwrap(), kv_f16);
    let (found_k, found_v) = (read(&gpu_k), read(&gpu_v));
    assert_close(&format!("k of {what}"), &found_k, &k, tolerance, relative);
    assert_close(&format!("v of {what}"), &found_v, &v, tolerance, relative);
    // Attention is held to what was stored: how it was rounded is not its affair. Its own key and value are not read
    // back, and a driver may leave out that they are rounded to halves and widened again.
    let params = AttentionParams { heads, kv_heads, head_dim, ring, scale };
    let mut expected = vec![0.0; h * hd];
    reference::attention(params, (n, kept), &q, [&found_k, &found_v], &mut expected);
    let found: Vec<f32> = block_on(out.read(gpu)).unwrap();
    let tolerance = if kv_f16 { 1e-3 } else { 1e-5 };
    assert_close(&format!("attention_one {what}"), &found, &expected, tolerance, relative);
}
