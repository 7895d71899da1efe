//! attention_one and attention_join against the twins of what they fuse: rope_store, then attention.
use super::cache_ops::seen_by_any;
use super::kept::{assert_stored, kept_again, rounding, stored, uploaded};
use super::{CAP, attend, flags, run, sums, terms};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::model::reduce;
use crate::ops::{
    AttentionOne, AttentionParams, FRAME, HeadShape, KvType, Plan, RingParams, Sums, splits,
};
use crate::reference::{self, KvLayout};
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

/// (S, W, N, position): the first token, a sink, filling, full, gone round; one split of the cache and several, the
/// token's own slot in the first, in one between and in the last; splits that hold nothing yet, and a first of which nothing is seen; far
/// beyond 2^32.
const RINGS: [(u32, u32, u32, u64); 12] = [
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
    (0, 100, 363, 363 * 3 + 300),
];

/// (H, KV, HD, R): every size of a head that models have and a few more, groups of one to four, and of eight; all turned
/// and a part.
const SHAPES: [(u32, u32, u32, u32); 10] = [
    (2, 2, 8, 8),
    (3, 1, 64, 64),
    (4, 1, 24, 16),
    (16, 2, 16, 16),
    (4, 2, 80, 20),
    (2, 2, 96, 96),
    (3, 1, 112, 112),
    (4, 1, 128, 64),
    (8, 1, 256, 256),
    (2, 1, 512, 128),
];

/// A workgroup's share of a split in every way that some device has it: as this one has it by subgroup; as a GPU of
/// such subgroups would; through workgroup memory as this one, and as GPUs of 32 and of 64 lanes.
fn plans(gpu: &Gpu, shape: HeadShape) -> Vec<Plan> {
    let of_lanes = |lanes| Plan::of(lanes, false, shape, Sums::Shared);
    let gpus = [32, 64].map(of_lanes);
    let own =
        sums(gpu).into_iter().map(|sums| Plan::of(gpu.tier.lanes(), gpu.tier.cpu, shape, sums));
    let mut all: Vec<Plan> = own.chain(gpus).collect();
    let subgroup = all.iter().find(|plan| plan.source.subgroups && plan.pieces == 1).copied();
    all.extend(subgroup.map(|plan| Plan { step: gpus[0].step, shuffled: false, ..plan }));
    all.push(Plan::of(4, true, shape, Sums::Shared));
    all
}

/// On a device of four lanes, as a browser may make of a software driver: its join found one split of several there.
#[test]
fn attention_of_one_token_by_four_lanes() {
    let mut gpu = gpu();
    gpu.tier.lanes = Some(4);
    for shape in [(4, 2, 16, 16), (4, 2, 80, 20), (3, 1, 64, 64)] {
        let last = plans(&gpu, head_shape(shape, KvType::F32)).len() - 1;
        attention_one(&gpu, (false, KvType::F32), shape, &[last]);
    }
}

/// Each shape in one of the ways it can go, with one of the four ways to turn and to store: each way has two shapes.
#[test]
fn attention_of_one_token() {
    let gpu = gpu();
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let plans = plans(&gpu, head_shape(shape, KvType::F32));
        attention_one(&gpu, ways()[(i + i / 4) % 4], shape, &[i % plans.len()]);
    }
}

/// Blocks in ways that differ in how they read: as this device has it, as GPUs have it, two eights and four at a time.
#[test]
fn attention_of_one_token_in_blocks() {
    let gpu = gpu();
    let of = |kv, shape: (u32, u32, u32, u32), which: usize| {
        let plans = plans(&gpu, head_shape(shape, kv)).len();
        attention_one(&gpu, (kv == KvType::Q8_0, kv), shape, &[which % plans]);
    };
    of(KvType::Q8_0, SHAPES[1], 0);
    of(KvType::Q4_0, SHAPES[5], 1);
    of(KvType::Q4_0, SHAPES[7], 3);
    of(KvType::Q8_0, (1, 1, 32, 32), 2);
}

#[test]
#[ignore = "every shape in every way, turned and stored in every way: ./build.sh test --all"]
fn attention_of_one_token_in_every_way() {
    let gpu = gpu();
    let blocks = [(false, KvType::Q8_0), (true, KvType::Q4_0)];
    let ways: Vec<_> = ways().into_iter().chain(blocks).collect();
    let all = SHAPES.iter().flat_map(|&shape| ways.iter().map(move |&way| (shape, way)));
    for (shape, way) in all.filter(|(shape, (_, kv))| kv.fits(shape.2 as usize)) {
        let plans = plans(&gpu, head_shape(shape, KvType::F32)).len();
        attention_one(&gpu, way, shape, &Vec::from_iter(0..plans));
    }
}

#[test]
fn attention_of_one_token_suits_every_device() {
    for head_dim in (8..=512).step_by(8) {
        for own in [4, 8, 16, 32, 64, 128] {
            for (cpu, sharing) in [(false, 1), (false, 8), (true, 3), (true, 4)] {
                let (alibi, capped) = (false, false);
                // The token's own key and value are in workgroup memory, too, where they are stored in blocks.
                let fits = KvType::Q8_0.fits(head_dim);
                let kv = if fits { KvType::Q8_0 } else { KvType::F16 };
                let staged = if fits { 2 * 4 * head_dim as u32 } else { 0 };
                let shape = HeadShape { head_dim, sharing, kv, alibi, capped };
                for sums in [Sums::Shared, Sums::Subgroup] {
                    let plan = Plan::of(own, cpu, shape, sums);
                    let what = format!("{shape:?} {own} lanes {cpu} {sums:?}: {plan:?}");
                    let Plan { lanes, group, teams, pieces, step, shuffled, source } = plan;
                    let eights = (head_dim / 8) as u32;
                    assert!(
                        lanes.is_power_of_two()
                            && 128u32.is_multiple_of(lanes)
                            && lanes <= 64.max(own),
                        "{what}"
                    );
                    assert!((sharing as u32).is_multiple_of(group) && group <= 4, "{what}");
                    assert!(teams == 1 || teams * eights <= lanes, "{what}");
                    assert!(pieces * lanes >= eights && (pieces == 1 || shuffled), "{what}");
                    assert!(eights.is_multiple_of(step) && [1, 2, 4].contains(&step), "{what}");
                    assert!(!shuffled || lanes.is_multiple_of(teams) && step == 1, "{what}");
                    assert!(!source.subgroups || lanes == own, "{what}");
                    // as shaders/attention_one.wgsl and lib/reduce4.wgsl have it
                    let eight = 32 * (group * eights).max(lanes);
                    let bytes =
                        eight + 4 * group * 128 + 16 * (lanes + lanes / lanes.min(8)) + staged;
                    assert!(bytes <= 16 << 10, "{what}: {bytes} bytes of workgroup memory");
                }
            }
        }
    }
}

/// Of every four shapes one has neither ALiBi nor a cap, one both, two one of them.
fn head_shape(shape: (u32, u32, u32, u32), kv: KvType) -> HeadShape {
    let (heads, kv_heads, head_dim, _) = shape;
    let [alibi, capped] = flags()[SHAPES.iter().position(|&own| own == shape).unwrap_or(3) % 4];
    let (head_dim, sharing) = (head_dim as usize, (heads / kv_heads) as usize);
    HeadShape { head_dim, sharing, kv, alibi, capped }
}

/// How pairs lie, and how K and V are stored.
type Kept = (bool, KvType);

/// Either layout with either kind of floats.
fn ways() -> [Kept; 4] {
    flags().map(|[neox, f16]| (neox, if f16 { KvType::F16 } else { KvType::F32 }))
}

fn attention_one(gpu: &Gpu, (neox, kv): Kept, shape: (u32, u32, u32, u32), which: &[usize]) {
    let heads = head_shape(shape, kv);
    for &which in which {
        let plan = plans(gpu, heads)[which];
        let op = block_on(AttentionOne::planned(gpu, heads, neox, plan)).unwrap();
        for (i, ring) in RINGS.into_iter().enumerate() {
            check(gpu, &op, ((neox, kv), i % 2 == 0), (1.0, i), shape, ring);
        }
        // A key and a value beyond what a half can be.
        check(gpu, &op, ((neox, kv), true), (1e6, 0), shape, RINGS[2]);
    }
}

fn check(
    gpu: &Gpu,
    op: &AttentionOne,
    ((neox, kv_type), kept): (Kept, bool),
    (gain, turn): (f32, usize),
    (heads, kv_heads, head_dim, rope_dim): (u32, u32, u32, u32),
    (sinks, window, slots, n): (u32, u32, u32, u64),
) {
    let ring = RingParams { sinks, window, slots };
    let shape = head_shape((heads, kv_heads, head_dim, rope_dim), kv_type);
    let (start, terms) = terms(shape, heads, turn);
    let what =
        format!("{shape:?} H {heads} {ring:?} n {n} neox {neox} kept {kept} gain {gain} {start:?}");
    // not 1/sqrt(HD), so that a kernel with its own idea of it fails; sharp enough to matter
    let scale = 0.7;
    let [h, kv, hd, half] = [heads, kv_heads, head_dim, rope_dim / 2].map(|n| n as usize);
    let held = (sinks + slots) as usize;
    let layout = KvLayout { kv: kv_type, kv_heads: kv, head_dim: hd };
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
    let seen = seen_by_any(ring, [n, n], kept);
    let own = match n < u64::from(sinks) {
        true => n as usize,
        false => (u64::from(sinks) + (n - u64::from(sinks)) % u64::from(slots)) as usize,
    };
    // What the token does not see may hold anything, and stays as it is; what was in its own place goes.
    let cache = |seed| {
        let mut values = noise(seed, held * kv * hd);
        for (i, slot) in values.chunks_exact_mut(kv * hd).enumerate() {
            if !seen[i] || i == own {
                slot.fill(f32::NAN);
            }
        }
        stored(&values, layout)
    };
    let ((k_words, old_k), (v_words, old_v)) = (cache(22), cache(23));
    let (mut k, mut v) = (old_k.clone(), old_v.clone());
    let mut q = vec![0.0; 3 * h * hd];
    let cap = if shape.capped { CAP } else { 0.0 };
    let params =
        AttentionParams { cap, ..attend([heads, kv_heads, head_dim, rope_dim], ring, scale) };
    reference::rope_store(params, neox, n, &qkv, turn, [&mut q, &mut k, &mut v]);
    let (mut k, mut v) = (kept_again(kv_type, &k, &old_k), kept_again(kv_type, &v, &old_v));

    let upload =
        |name: &str, shape: &[usize], data: &[f32]| Tensor::upload(gpu, name, shape, data).unwrap();
    let frame = [reduce(n, ring), 1, u32::from(kept), 0];
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &frame).unwrap();
    let qkv = upload("qkv", &[1, (h + 2 * kv) * hd], &qkv);
    let turns = upload("turns", &[ring.phases(), half, 2], &turns);
    let gpu_k = uploaded(gpu, layout, held, &k_words);
    let gpu_v = uploaded(gpu, layout, held, &v_words);
    // What is not written shows: also what the join takes from a split that holds nothing.
    let count = splits(ring);
    let parts = vec![f32::NAN; count as usize * h * (hd + 4)];
    let parts = upload("parts", &[count as usize, h, hd + 4], &parts);
    let out = upload("out", &[1, h * hd], &vec![f32::NAN; h * hd]);
    let gpu_terms = upload("terms", &[h, 4], &terms);
    let mut recording = Recording::default();
    let tensors = [&frame, &qkv, &turns, &gpu_k, &gpu_v, &parts, &out, &gpu_terms];
    op.record(&mut recording, "test", params, tensors).unwrap();
    run(gpu, recording);

    // The cache as it now is: the token's own in its place, all else as it was.
    let tolerance = rounding(kv_type);
    // A half has 11 bits.
    let (tolerance, relative) = match gain > 1.0 {
        true => (1e-6 * gain, tolerance),
        false => (tolerance, 1e-5),
    };
    let read = |tensor: &Tensor| layout.values(&block_on(tensor.read(gpu)).unwrap(), held);
    let (mut found_k, mut found_v) = (read(&gpu_k), read(&gpu_v));
    for found in [&mut found_k, &mut found_v] {
        for (slot, _) in found.chunks_exact_mut(kv * hd).zip(&seen).filter(|(_, seen)| !**seen) {
            assert!(slot.iter().all(|x| x.is_nan()), "{what}: a slot that is not seen is written");
            slot.fill(0.0);
        }
    }
    k.iter_mut().chain(&mut v).filter(|x| x.is_nan()).for_each(|x| *x = 0.0);
    let close = (tolerance, relative);
    assert_stored(&format!("k of {what}"), kv_type, &found_k, &k, close);
    assert_stored(&format!("v of {what}"), kv_type, &found_v, &v, close);
    // Attention is held to what was stored: how it was rounded is not its affair. Its own key and value are not read
    // back, and a driver may leave out that they are rounded to halves and widened again.
    let mut expected = vec![0.0; h * hd];
    reference::attention(params, (n, kept), &q, [&found_k, &found_v], &terms, &mut expected);
    let found: Vec<f32> = block_on(out.read(gpu)).unwrap();
    // Scores that large leave one key in all; below a cap many of them add up.
    let gain = if shape.capped { gain } else { 1.0 };
    let tolerance = if kv_type == KvType::F32 { 1e-5 * gain } else { 1e-3 * gain };
    assert_close(&format!("attention_one {what}"), &found, &expected, tolerance, relative);
}
