//! rope_store and attention against their twins: the ring, seen from both sides.
use super::kept::{assert_stored, kept_again, rounding, stored, uploaded};
use super::{CAP, attend, flags, run, terms};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::model::reduce;
use crate::ops::{
    Attention, AttentionParams, ChunkAttention, FRAME, HeadShape, KvType, RingParams, RopeStore,
    Shares, Start, Sums, carried,
};
use crate::reference::{self, KvLayout};
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

/// (S, W, N, first position, tokens of the pass): filling, full, gone round, far beyond 2^32, and where nothing of the first
/// span is seen.
const PASSES: [(u32, u32, u32, u64, usize); 12] = [
    (0, 1, 1, 0, 1),
    (4, 8, 8, 0, 1),
    (4, 8, 12, 0, 5),
    (4, 8, 12, 2, 5),
    (4, 8, 12, 8, 5),
    (4, 8, 12, 11, 5),
    (2, 70, 133, 300, 64),
    (2, 300, 363, 600, 64),
    (0, 16, 20, 1000, 5),
    (1, 5, 8, (1 << 33) + 7, 4),
    (3, 200, 263, 5_000_000_001, 3),
    (0, 20, 133, 133 * 2 + 100, 5),
];

#[test]
fn rope_store() {
    let gpu = gpu();
    // (H, KV, HD, R): one head; grouped; partly turned; wider than a workgroup
    let shapes = [(1, 1, 8, 8), (4, 2, 16, 16), (3, 1, 64, 32), (2, 2, 256, 256)];
    for [neox, f16] in flags() {
        let kv = if f16 { KvType::F16 } else { KvType::F32 };
        let op = block_on(RopeStore::new(&gpu, neox, kv)).unwrap();
        for (i, &pass) in PASSES.iter().enumerate() {
            check_rope_store(&gpu, &op, (neox, kv), 1.0, shapes[i % shapes.len()], pass);
        }
        // Beyond what a half can be: some as they come, some only once they are turned.
        for gain in [66_000.0, 1e6] {
            check_rope_store(&gpu, &op, (neox, kv), gain, shapes[1], PASSES[4]);
        }
    }
}

#[test]
fn rope_store_in_blocks() {
    let gpu = gpu();
    // one block; a number of blocks that is odd; grouped; partly turned; the widest
    let shapes =
        [(1, 1, 32, 32), (2, 1, 96, 96), (4, 2, 64, 64), (3, 3, 128, 32), (1, 1, 512, 512)];
    for (neox, kv) in [(false, KvType::Q8_0), (true, KvType::Q4_0)] {
        let op = block_on(RopeStore::new(&gpu, neox, kv)).unwrap();
        for (i, &pass) in PASSES.iter().enumerate() {
            check_rope_store(&gpu, &op, (neox, kv), 1.0, shapes[i % shapes.len()], pass);
        }
        // so small that a scale is subnormal
        check_rope_store(&gpu, &op, (neox, kv), 1e-4, shapes[2], PASSES[4]);
        // A head of zeros has a scale of zero.
        check_rope_store(&gpu, &op, (neox, kv), 0.0, shapes[2], PASSES[4]);
    }
}

fn check_rope_store(
    gpu: &Gpu,
    op: &RopeStore,
    (neox, kv_type): (bool, KvType),
    gain: f32,
    (heads, kv_heads, head_dim, rope_dim): (u32, u32, u32, u32),
    (sinks, window, slots, n, tokens): (u32, u32, u32, u64, usize),
) {
    let ring = RingParams { sinks, window, slots };
    let params = attend([heads, kv_heads, head_dim, rope_dim], ring, 0.7);
    let [h, kv, hd, half] = [heads, kv_heads, head_dim, rope_dim / 2].map(|n| n as usize);
    let held = (sinks + slots) as usize;
    let qkv: Vec<f32> = noise(1, tokens * (h + 2 * kv) * hd).iter().map(|x| gain * x).collect();
    let turn = |phase: u64, pair: usize| (phase as f64 * 0.3 / (1.0 + pair as f64)).sin_cos();
    let table: Vec<f32> = (0..ring.phases() as u64)
        .flat_map(|phase| (0..half).map(move |pair| (phase, pair)))
        .flat_map(|(phase, pair)| [turn(phase, pair).1 as f32, turn(phase, pair).0 as f32])
        .collect();

    // A slot that no token of the pass goes to keeps what it held.
    let old = noise(2, held * kv * hd);
    let layout = KvLayout { kv: kv_type, kv_heads: kv, head_dim: hd };
    let (old_words, old) = stored(&old, layout);
    let (mut k, mut v) = (old.clone(), old.clone());
    let mut q = vec![0.0; tokens * 3 * h * hd];
    let turns = |phase, pair| (turn(phase, pair).1, turn(phase, pair).0);
    reference::rope_store(params, neox, n, &qkv, turns, [&mut q, &mut k, &mut v]);
    let (k, v) = (kept_again(kv_type, &k, &old), kept_again(kv_type, &v, &old));

    let upload = |shape: &[usize], data: &[f32]| Tensor::upload(gpu, "t", shape, data).unwrap();
    let cache = || uploaded(gpu, layout, held, &old_words);
    let frame = [reduce(n, ring), tokens as u32, 1, 0];
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &frame).unwrap();
    let qkv = upload(&[tokens, (h + 2 * kv) * hd], &qkv);
    let table = upload(&[ring.phases(), half, 2], &table);
    let out = upload(&[tokens, 3, h * hd], &vec![f32::NAN; q.len()]);
    let (gpu_k, gpu_v) = (cache(), cache());
    let mut recording = Recording::default();
    let tensors = [&frame, &qkv, &table, &out, &gpu_k, &gpu_v];
    op.record(&mut recording, "test", params, tensors).unwrap();
    run(gpu, recording);

    let what =
        format!("rope_store gain {gain} neox {neox} {kv_type:?} {params:?} n {n} tokens {tokens}");
    let mut found: Vec<f32> = block_on(out.read(gpu)).unwrap();
    for t in 0..tokens {
        // The queries of a sink are asked for at their third phase alone.
        if n + (t as u64) < u64::from(sinks) {
            let at = t * 3 * h * hd;
            found[at..at + 2 * h * hd].copy_from_slice(&q[at..at + 2 * h * hd]);
        }
    }
    assert_close(&what, &found, &q, 1e-6 * gain, 1e-5);
    let tolerance = rounding(kv_type);
    // A half has 11 bits.
    let (tolerance, relative) = match gain > 1.0 {
        true => (1e-6 * gain, tolerance),
        false => (tolerance, 1e-5),
    };
    for (name, tensor, expected) in [("k", gpu_k, k), ("v", gpu_v, v)] {
        let found: Vec<u32> = block_on(tensor.read(gpu)).unwrap();
        let found = layout.values(&found, held);
        let what = format!("{name} of {what}");
        assert_stored(&what, kv_type, &found, &expected, (tolerance * gain.min(1.0), relative));
    }
}

#[test]
fn attention() {
    // groups of one, two, three, four, and four of eight; heads that end within a piece
    let shapes =
        [(1, 1, 8), (4, 2, 16), (3, 1, 64), (4, 1, 24), (16, 2, 32), (5, 5, 256), (6, 2, 136)];
    for (i, kv) in [KvType::F32, KvType::F16].into_iter().enumerate() {
        // neither ALiBi nor a cap, one of them, both: by turns
        let shapes = shapes.iter().zip(flags().into_iter().cycle().skip(i));
        attention_of_shapes(ChunkAttention::Heads, kv, shapes.map(|(&shape, more)| (shape, more)));
    }
}

#[test]
fn attention_by_tiles() {
    // SwiftShader compiles a pipeline of tiles for a minute: each of a few shapes with one way to store. The heads that
    // most models have, as they are stored by default; those that end within a piece, and that need several workgroups.
    let [plain, capped, alibi, both] = flags();
    let of = |kv, shapes: [_; 2]| attention_of_shapes(ChunkAttention::Tiles, kv, shapes);
    of(KvType::F16, [((16, 2, 64), plain), ((6, 2, 128), both)]);
    of(KvType::F32, [((3, 1, 136), alibi), ((2, 1, 320), capped)]);
}

#[test]
fn attention_by_columns() {
    // no sharing; heads of one token in several workgroups; of two tokens in one lane
    let [plain, capped, alibi, both] = flags();
    let shapes = [((1, 1, 64), plain), ((9, 3, 64), both), ((2, 2, 128), alibi)];
    attention_of_shapes(ChunkAttention::Columns, KvType::F16, shapes);
    let shapes = [((64, 1, 64), alibi), ((8, 2, 128), capped)];
    attention_of_shapes(ChunkAttention::Columns, KvType::F32, shapes);
}

/// Blocks are read in one way whatever the kernel: each kernel with each type and a shape or two.
#[test]
fn attention_in_blocks() {
    let [plain, capped, alibi, both] = flags();
    // one block, and three; groups of one to four
    for kv in [KvType::Q8_0, KvType::Q4_0] {
        attention_of_shapes(ChunkAttention::Heads, kv, [((3, 1, 96), plain), ((2, 2, 32), both)]);
    }
    attention_of_shapes(ChunkAttention::Columns, KvType::Q8_0, [((9, 3, 64), alibi)]);
    attention_of_shapes(ChunkAttention::Columns, KvType::Q4_0, [((2, 2, 128), capped)]);
}

#[test]
fn attention_by_tiles_in_blocks() {
    let [plain, ..] = flags();
    attention_of_shapes(ChunkAttention::Tiles, KvType::Q8_0, [((3, 1, 128), plain)]);
    attention_of_shapes(ChunkAttention::Tiles, KvType::Q4_0, [((4, 2, 64), plain)]);
}

/// H, KV, HD.
type Heads = (u32, u32, u32);

/// Each of the shapes with ALiBi or without, with a cap or without.
fn attention_of_shapes(
    way: ChunkAttention,
    kv: KvType,
    shapes: impl IntoIterator<Item = (Heads, [bool; 2])>,
) {
    let gpu = gpu();
    let sums = Sums::of(&gpu);
    for (shape, [alibi, capped]) in shapes {
        let (heads, kv_heads, head_dim) = shape;
        let (head_dim, sharing) = (head_dim as usize, (heads / kv_heads) as usize);
        let heads = HeadShape { head_dim, sharing, kv, alibi, capped };
        if !way.fits(&gpu, heads, sums) {
            // Where a workgroup is one small subgroup, as on every software driver known, it has to.
            assert!(sums == Sums::Shared || gpu.tier.lanes() > 16, "{way:?} {:?}", gpu.tier);
            continue;
        }
        let mut op = block_on(Attention::new(&gpu, heads, way)).unwrap();
        for (i, &pass) in PASSES.iter().enumerate() {
            let what = format!("attention {way:?} {kv:?}");
            // half of them as if the policy were `window`
            check_attention(&gpu, &op, &what, heads, (i, i % 2 == 1), shape, pass);
            // and by spans, as a long cache goes
            if pass.0 + pass.2 > 64 {
                op.span = Some(64);
                let what = format!("{what} by spans");
                check_attention(&gpu, &op, &what, heads, (i, i % 2 == 1), shape, pass);
                op.span = None;
            }
        }
    }
}

/// Whether any query from `n` to `last` sees what is stored at each index; by token, as the twin has it.
pub(super) fn seen_by_any(ring: RingParams, [n, last]: [u64; 2], kept: bool) -> Vec<bool> {
    let [sinks, window, slots] = [ring.sinks, ring.window, ring.slots].map(u64::from);
    let mut seen = vec![false; (sinks + slots) as usize];
    for m in 0..sinks.min(last + 1) {
        seen[m as usize] = kept || n.max(m) - m < window;
    }
    for m in (n + 1).saturating_sub(window).max(sinks)..last + 1 {
        seen[(sinks + (m - sinks) % slots) as usize] = true;
    }
    seen
}

fn check_attention(
    gpu: &Gpu,
    op: &Attention,
    what: &str,
    shape: HeadShape,
    (turn, kept): (usize, bool),
    (heads, kv_heads, head_dim): Heads,
    (sinks, window, slots, n, tokens): (u32, u32, u32, u64, usize),
) {
    let ring = RingParams { sinks, window, slots };
    let [h, kv, hd] = [heads, kv_heads, head_dim].map(|n| n as usize);
    let layout = KvLayout { kv: shape.kv, kv_heads: kv, head_dim: hd };
    let (start, terms) = terms(shape, heads, turn);
    // not 1/sqrt(HD), so that a kernel with its own idea of it fails; sharp enough to matter
    let scale = 0.7;
    let cap = if shape.capped { CAP } else { 0.0 };
    let params = attend([heads, kv_heads, head_dim, head_dim], ring, scale);
    let params = AttentionParams { cap, ..params };
    let held = (sinks + slots) as usize;
    let seen = seen_by_any(ring, [n, n + tokens as u64 - 1], kept);
    // What nobody sees may hold anything.
    let cache = |seed| {
        let mut values = noise(seed, held * kv * hd);
        for (slot, _) in values.chunks_exact_mut(kv * hd).zip(&seen).filter(|(_, seen)| !**seen) {
            slot.fill(f32::NAN);
        }
        stored(&values, layout)
    };
    let q = noise(1, tokens * 3 * h * hd);
    let ((k_words, k), (v_words, v)) = (cache(2), cache(3));
    let mut expected = vec![0.0; tokens * h * hd];
    reference::attention(params, (n, kept), &q, [&k, &v], &terms, &mut expected);

    let frame = [reduce(n, ring), tokens as u32, u32::from(kept), 0];
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &frame).unwrap();
    let q = Tensor::upload(gpu, "q", &[tokens, 3, h * hd], &q).unwrap();
    let (k, v) = (uploaded(gpu, layout, held, &k_words), uploaded(gpu, layout, held, &v_words));
    let nan = vec![f32::NAN; expected.len()];
    let out = Tensor::upload(gpu, "out", &[tokens, h * hd], &nan).unwrap();
    let nan = vec![f32::NAN; tokens * h * carried(hd)];
    let carry = Tensor::upload(gpu, "carry", &[tokens, h, carried(hd)], &nan).unwrap();
    let terms = Tensor::upload(gpu, "terms", &[h, 4], &terms).unwrap();
    let mut recording = Recording::default();
    op.record(&mut recording, "test", params, [&frame, &q, &k, &v, &out, &carry, &terms]).unwrap();
    run(gpu, recording);
    let found: Vec<f32> = block_on(out.read(gpu)).unwrap();
    let alibi = shape.alibi;
    let what =
        format!("{what} {params:?} alibi {alibi} {start:?} n {n} tokens {tokens} kept {kept}");
    assert_close(&what, &found, &expected, 1e-5, 1e-5);
}

#[test]
fn shares() {
    let gpu = gpu();
    let shapes = [(1, 1, 8), (4, 2, 16), (3, 1, 64), (4, 1, 24), (16, 2, 32), (5, 5, 256)];
    let blocks = [(1, 1, 32), (4, 2, 64), (3, 1, 96)];
    for kv_type in KvType::ALL {
        let shapes = if kv_type.in_blocks() { &blocks[..] } else { &shapes[..] };
        for (i, &(sinks, window, slots, n, tokens)) in PASSES.iter().enumerate() {
            let (heads, kv_heads, head_dim) = shapes[i % shapes.len()];
            let ring = RingParams { sinks, window, slots };
            let [h, kv, hd] = [heads, kv_heads, head_dim].map(|n| n as usize);
            let [alibi, capped] = flags()[i % 4];
            let shape = HeadShape { head_dim: hd, sharing: h / kv, kv: kv_type, alibi, capped };
            let layout = KvLayout { kv: kv_type, kv_heads: kv, head_dim: hd };
            let (start, terms) = terms(shape, heads, i);
            let cap = if capped { CAP } else { 0.0 };
            let op = block_on(Shares::new(&gpu, shape)).unwrap();
            let params = attend([heads, kv_heads, head_dim, head_dim], ring, 0.7);
            let params = AttentionParams { cap, ..params };
            let gpu_terms = Tensor::upload(&gpu, "terms", &[h, 4], &terms).unwrap();
            let held = (sinks + slots) as usize;
            let q = noise(1, tokens * 3 * h * hd);
            let (k_words, k) = stored(&noise(2, held * kv * hd), layout);
            let kept = i % 2 == 1;
            // all that is stored, then some of it
            for first in [held, held.div_ceil(2), 1] {
                let mut expected = vec![0.0; tokens * h * first];
                reference::shares(params, (n, kept), first, &q, &k, &terms, &mut expected);

                let frame = [reduce(n, ring), tokens as u32, u32::from(kept), 0];
                let frame = Tensor::upload(&gpu, "frame", &[FRAME], &frame).unwrap();
                let q = Tensor::upload(&gpu, "q", &[tokens, 3, h * hd], &q).unwrap();
                let k = uploaded(&gpu, layout, held, &k_words);
                let v = uploaded(&gpu, layout, held, &vec![u32::MAX; k_words.len()]);
                let nan = vec![f32::NAN; 3 * expected.len()];
                let out = Tensor::upload(&gpu, "out", &[3, tokens, h, first], &nan).unwrap();
                let mut recording = Recording::default();
                let tensors = [&frame, &q, &k, &v, &out, &gpu_terms];
                op.record(&mut recording, "test", params, 1, tensors).unwrap();
                run(&gpu, recording);
                let found: Vec<f32> = block_on(out.read(&gpu)).unwrap();
                let what = format!(
                    "shares {shape:?} {params:?} {start:?} n {n} tokens {tokens} first {first}"
                );
                let layers: Vec<&[f32]> = found.chunks_exact(expected.len()).collect();
                assert!(layers[0].iter().chain(layers[2]).all(|v| v.is_nan()), "{what}");
                assert_close(&what, layers[1], &expected, 1e-6, 1e-4);
                let whole = first == held && start == Start::Plain;
                for share in layers[1].chunks_exact(held).filter(|_| whole) {
                    let sum: f32 = share.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-4, "{what}: {sum} in all");
                }
            }
        }
    }
}

#[test]
fn attention_refuses_a_cache_of_another_size() {
    let gpu = gpu();
    let (alibi, capped) = (false, false);
    let shape = HeadShape { head_dim: 8, sharing: 1, kv: KvType::F32, alibi, capped };
    let op = block_on(Attention::new(&gpu, shape, ChunkAttention::Tiles)).unwrap();
    let ring = RingParams { sinks: 1, window: 4, slots: 4 };
    let params = attend([1, 1, 8, 8], ring, 1.0);
    let make = |name: &str, shape: &[usize]| Tensor::zeros(&gpu, name, shape).unwrap();
    let [frame, q, out] = [make("frame", &[FRAME]), make("q", &[1, 3, 8]), make("out", &[1, 8])];
    let [k, v, carry] = [make("k", &[5, 8]), make("v", &[4, 8]), make("carry", &[1, 1, 2])];
    let terms = make("terms", &[1, 4]);
    let tensors = [&frame, &q, &k, &v, &out, &carry, &terms];
    let error = op.record(&mut Recording::default(), "test", params, tensors).unwrap_err();
    assert_eq!(error.to_string(), "attention: v has shape [4, 8], expected [5, 8]");
    // and a cap where the kernels have none
    let v = make("v", &[5, 8]);
    let params = AttentionParams { cap: 50.0, ..params };
    let tensors = [&frame, &q, &k, &v, &out, &carry, &terms];
    let error = op.record(&mut Recording::default(), "test", params, tensors).unwrap_err();
    let why =
        "attention: out has shape [1, 8], expected a cap of 0, as its kernels are not made for one";
    assert_eq!(error.to_string(), why);
}
