//! What softmax starts from, as a property that needs no twin: off by one is plain softmax with one key more, all zeros,
//! whose value is zeros.
use super::{attend, run};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::model::reduce;
use crate::ops::{
    Attention, AttentionOne, AttentionParams, ChunkAttention, FRAME, HeadShape, KvType, RingParams,
    Start, Sums, carried, head_terms, splits,
};
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

const H: usize = 2;
const HD: usize = 64;
const SHAPE: HeadShape =
    HeadShape { head_dim: HD, sharing: H, kv: KvType::F32, alibi: false, capped: false };

/// A cache without sinks, in which the first token of a pass is at `n`.
#[derive(Clone, Copy)]
struct Case {
    window: u32,
    slots: u32,
    n: u64,
    tokens: usize,
}

impl Case {
    /// With a sink of zeros, or none. K and V are the same bytes.
    fn cache(self, gpu: &Gpu, sink: bool) -> (AttentionParams, [Tensor; 3]) {
        let Self { window, slots, n, tokens } = self;
        let ring = RingParams { sinks: u32::from(sink), window, slots };
        let held = (ring.sinks + slots) as usize;
        let position = reduce(n + u64::from(ring.sinks), ring);
        let frame = [position, tokens as u32, 1, 0];
        let frame = Tensor::upload(gpu, "frame", &[FRAME], &frame).unwrap();
        let [k, v] = [31, 32].map(|seed| {
            let mut values = vec![0.0; if sink { HD } else { 0 }];
            values.extend(noise(seed, slots as usize * HD));
            Tensor::upload(gpu, "kv", &[held, HD], &values).unwrap()
        });
        (attend([H as u32, 1, HD as u32, 0], ring, 0.4), [frame, k, v])
    }
}

fn terms(gpu: &Gpu, start: &Start) -> Tensor {
    Tensor::upload(gpu, "terms", &[H, 4], &head_terms(H, None, start)).unwrap()
}

fn chunk(gpu: &Gpu, op: &Attention, case: Case, sink: bool, start: &Start) -> Vec<f32> {
    let tokens = case.tokens;
    let (params, [frame, k, v]) = case.cache(gpu, sink);
    let q =
        Tensor::upload(gpu, "q", &[tokens, 3, H * HD], &noise(33, tokens * 3 * H * HD)).unwrap();
    let make = |shape: &[usize]| {
        let nan = vec![f32::NAN; shape.iter().product()];
        Tensor::upload(gpu, "out", shape, &nan).unwrap()
    };
    let (out, carry) = (make(&[tokens, H * HD]), make(&[tokens, H, carried(HD)]));
    let terms = terms(gpu, start);
    let mut recording = Recording::default();
    op.record(&mut recording, "test", params, [&frame, &q, &k, &v, &out, &carry, &terms]).unwrap();
    run(gpu, recording);
    block_on(out.read(gpu)).unwrap()
}

fn one(gpu: &Gpu, op: &AttentionOne, case: Case, sink: bool, start: &Start) -> Vec<f32> {
    let (params, [frame, k, v]) = case.cache(gpu, sink);
    let qkv = Tensor::upload(gpu, "qkv", &[1, (H + 2) * HD], &noise(34, (H + 2) * HD)).unwrap();
    let turns = Tensor::zeros(gpu, "turns", &[1]).unwrap();
    let parts = [splits(params.ring) as usize, H, HD + 4];
    let parts = Tensor::upload(gpu, "parts", &parts, &vec![f32::NAN; parts.iter().product()]);
    let (parts, out) = (parts.unwrap(), Tensor::zeros(gpu, "out", &[1, H * HD]).unwrap());
    let terms = terms(gpu, start);
    let mut recording = Recording::default();
    let tensors = [&frame, &qkv, &turns, &k, &v, &parts, &out, &terms];
    op.record(&mut recording, "test", params, tensors).unwrap();
    run(gpu, recording);
    block_on(out.read(gpu)).unwrap()
}

/// `attention` by whether there is a sink, and from what softmax starts.
fn check(what: &str, attention: impl Fn(bool, &Start) -> Vec<f32>) {
    let expected = attention(true, &Start::Plain);
    assert_close(what, &attention(false, &Start::OffByOne), &expected, 1e-6, 1e-5);
    // A score of zero that was learned is no other thing; and it is not nothing.
    let learned = attention(false, &Start::Learned(vec![0.0; H]));
    assert_eq!(learned, attention(false, &Start::OffByOne), "{what}");
    let plain = attention(false, &Start::Plain);
    let most = plain.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // one key of some hundred, at the least
    assert!(most > 1e-4, "{what}: {most} is all that the key of zeros changes");
}

#[test]
fn off_by_one_is_one_more_key_of_zeros() {
    let gpu = gpu();
    // a chunk whose first queries see none of the first span of slots
    let case = Case { window: 70, slots: 160, n: 160 * 3 + 140, tokens: 20 };
    for way in [ChunkAttention::Heads, ChunkAttention::Tiles, ChunkAttention::Columns] {
        if !way.fits(&gpu, SHAPE, Sums::of(&gpu)) {
            continue;
        }
        let mut op = block_on(Attention::new(&gpu, SHAPE, way)).unwrap();
        for span in [None, Some(64)] {
            op.span = span;
            let attention = |sink, start: &Start| chunk(&gpu, &op, case, sink, start);
            check(&format!("{way:?} {span:?}"), attention);
        }
    }
    let op = block_on(AttentionOne::new(&gpu, SHAPE, false, Sums::of(&gpu))).unwrap();
    // one split; several; several of which the first sees nothing
    for (window, slots, n) in [(40, 48, 200), (300, 363, 1000), (70, 300, 300 * 2 + 299)] {
        let case = Case { window, slots, n, tokens: 1 };
        let attention = |sink, start: &Start| one(&gpu, &op, case, sink, start);
        check(&format!("one token, {slots} slots"), attention);
    }
}
