//! Drawing on the device against the sampler on the host, draw by draw, and against the probabilities themselves.
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{FRAME, NO_TOKEN, RingParams, Sample, SamplerState};
use crate::tests::support::{gpu, noise};
use crate::text::{Sampler, SamplerSettings};
use pollster::block_on;

const RING: RingParams = RingParams { sinks: 2, window: 5, slots: 9 };

/// `count` draws on the device from the same logits, after the ids of `recent`.
fn drawn(
    (gpu, op): (&Gpu, &Sample),
    by: &SamplerSettings,
    logits: &[f32],
    banned: &[u32],
    recent: &[u32],
    count: usize,
) -> Vec<u32> {
    let vocab = logits.len();
    let draws = SamplerState::new(gpu, by, vocab).unwrap();
    let kept = recent.len().saturating_sub(by.penalty_last_n as usize);
    draws.set(gpu, 0, recent[kept..].iter().copied());
    let mut bits = vec![0u32; vocab.div_ceil(32)];
    banned.iter().for_each(|&id| bits[id as usize / 32] |= 1 << (id % 32));
    let logits = Tensor::upload(gpu, "logits", &[1, vocab], logits).unwrap();
    let banned = Tensor::upload(gpu, "banned", &[bits.len()], &bits).unwrap();
    let token = Tensor::upload(gpu, "token", &[1], &[9u32]).unwrap();
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &[3u32, 1, 1, 0]).unwrap();
    let chosen = Tensor::upload(gpu, "chosen", &[count], &vec![7u32; count]).unwrap();
    let mut recording = Recording::default();
    let tensors = [&logits, &banned, &token, &frame, &chosen];
    op.record(&mut recording, "test", RING, &draws, tensors).unwrap();
    let program = recording.finish(gpu).unwrap();
    gpu.run_times(count, &[&program], &[]);
    let chosen: Vec<u32> = block_on(chosen.read(gpu)).unwrap();
    let last: Vec<u32> = block_on(token.read(gpu)).unwrap();
    // A step that goes on from no token must still read a row that is there.
    assert_eq!(last[0], (*chosen.last().unwrap()).min(vocab as u32 - 1));
    chosen
}

/// The same on the host.
fn expected(
    by: &SamplerSettings,
    logits: &[f32],
    banned: &[u32],
    recent: &[u32],
    count: usize,
) -> Vec<u32> {
    let mut sampler = Sampler::new(by.clone(), logits.len(), banned).unwrap();
    recent.iter().for_each(|&id| sampler.accept(id));
    let mut draw = || {
        let token = sampler.sample(&mut logits.to_vec()).unwrap();
        sampler.accept(token);
        token
    };
    (0..count).map(|_| draw()).collect()
}

#[test]
fn draws_equal_the_host_draw_by_draw() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let off = SamplerSettings { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerSettings::default() };
    let penalties = SamplerSettings {
        repeat_penalty: 1.3,
        presence_penalty: 0.2,
        frequency_penalty: 0.4,
        penalty_last_n: 6,
        ..off.clone()
    };
    let cases = [
        off.clone(),
        SamplerSettings { temperature: 0.1, ..off.clone() },
        SamplerSettings { temperature: 1e-40, ..off.clone() },
        SamplerSettings { temperature: 3.0, ..off.clone() },
        SamplerSettings { top_k: 1, ..off.clone() },
        SamplerSettings { top_k: 5, ..off.clone() },
        SamplerSettings { top_k: 40, ..off.clone() },
        SamplerSettings { top_k: 1500, top_p: 0.97, ..off.clone() },
        SamplerSettings { top_p: 0.5, ..off.clone() },
        SamplerSettings { top_p: 0.0, ..off.clone() },
        SamplerSettings { top_k: 7, top_p: 0.9, ..off.clone() },
        SamplerSettings { min_p: 0.3, ..off.clone() },
        SamplerSettings::default(),
        penalties.clone(),
        SamplerSettings { top_k: 3, top_p: 0.8, min_p: 0.1, ..penalties.clone() },
        SamplerSettings { temperature: 0.0, ..penalties },
    ];
    for (i, by) in cases.iter().enumerate() {
        for (seed, vocab) in [(1u64, 1usize), (2, 37), (3, 1000), (1 << 40, 5003)] {
            let by = SamplerSettings { seed, ..by.clone() };
            let plain: Vec<f32> = noise(seed, vocab).iter().map(|v| 6.0 * v).collect();
            // many that are equal, so that the order of ids decides
            let equal: Vec<f32> = plain.iter().map(|v| (v / 1.5).round() * 1.5).collect();
            let banned = if vocab > 1 { vec![vocab as u32 / 2, 0] } else { vec![] };
            let recent: Vec<u32> = (0..9).map(|n| n * 5 % vocab as u32).collect();
            for logits in [&plain, &equal] {
                let found = drawn((&gpu, &op), &by, logits, &banned, &recent, 12);
                let expected = expected(&by, logits, &banned, &recent, 12);
                assert_eq!(found, expected, "case {i}, {vocab} tokens: {by:?}");
                assert!(found.iter().all(|id| !banned.contains(id)));
            }
        }
    }
}

/// The largest vocabularies there are, by every way through the kernels; all tokens alike, too.
#[test]
fn draws_from_large_vocabularies_equal_the_host() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let off = SamplerSettings { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerSettings::default() };
    let penalties = SamplerSettings { repeat_penalty: 1.2, ..SamplerSettings::default() };
    let cases = [
        SamplerSettings::default(),
        SamplerSettings { top_p: 0.9, ..off.clone() },
        SamplerSettings { top_k: 2000, top_p: 0.9, ..off.clone() },
        SamplerSettings { temperature: 0.0, ..penalties.clone() },
        penalties,
        off,
    ];
    for vocab in [152_064, 262_144] {
        let peaked: Vec<f32> = noise(7, vocab).iter().map(|v| 12.0 * v).collect();
        for logits in [&peaked, &vec![1.5; vocab]] {
            for by in &cases {
                let by = SamplerSettings { seed: 3, ..by.clone() };
                let (banned, recent) = ([0, 77_777], [5, 100_000, 5]);
                let found = drawn((&gpu, &op), &by, logits, &banned, &recent, 3);
                let expected = expected(&by, logits, &banned, &recent, 3);
                assert_eq!(found, expected, "{vocab} tokens: {by:?}");
            }
        }
    }
}

/// -0 and 0 are one, and what top-k could keep may not be there.
#[test]
fn draws_among_zeros_and_among_few_equal_the_host() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let by = |top_k, top_p| SamplerSettings { top_k, top_p, min_p: 0.0, ..Default::default() };
    let zeros: Vec<f32> = (0..3000).map(|id| if id % 3 == 2 { 0.0 } else { -0.0 }).collect();
    let mut few = vec![f32::NEG_INFINITY; 3000];
    [5, 1500, 1501, 2999].iter().for_each(|&id: &usize| few[id] = id as f32 * 1e-3);
    for by in [by(7, 1.0), by(40, 0.2), by(0, 0.0035)] {
        for logits in [&zeros, &few] {
            let found = drawn((&gpu, &op), &by, logits, &[], &[], 40);
            assert_eq!(found, expected(&by, logits, &[], &[], 40), "{by:?}");
        }
        let found = drawn((&gpu, &op), &by, &zeros, &[], &[], 40);
        assert!(found.iter().all(|&id| id < 12), "{by:?}: the lowest ids come first: {found:?}");
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let logits: Vec<f32> = noise(5, 12).iter().map(|v| 2.0 * v).collect();
    let (count, temperature) = (4096, 0.7);
    let by = SamplerSettings {
        temperature,
        top_k: 8,
        top_p: 1.0,
        min_p: 0.0,
        seed: 11,
        ..SamplerSettings::default()
    };
    let found = drawn((&gpu, &op), &by, &logits, &[], &[], count);
    let mut order: Vec<usize> = (0..12).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let weight = |i: usize| f64::from(logits[i] / temperature).exp();
    let total: f64 = order[..8].iter().map(|&i| weight(i)).sum();
    let times = |i: usize| found.iter().filter(|&&id| id as usize == i).count() as f64;
    let chi2: f64 = order[..8]
        .iter()
        .map(|&i| {
            let mean = count as f64 * weight(i) / total;
            (times(i) - mean).powi(2) / mean
        })
        .sum();
    // seven degrees of freedom: 24.3 is passed once in a thousand times
    assert!(chi2 < 24.3, "chi squared {chi2}");
    assert_eq!(order[8..].iter().map(|&i| times(i)).sum::<f64>(), 0.0, "top-k lets eight through");
}

#[test]
fn nothing_to_draw_from_is_told() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let by = SamplerSettings::default();
    let drawn = |logits: &[f32], banned: &[u32]| drawn((&gpu, &op), &by, logits, banned, &[], 2);
    assert_eq!(drawn(&[1.0, 2.0], &[0, 1]), [NO_TOKEN; 2]);
    assert_eq!(drawn(&[1.0, f32::NAN], &[]), [NO_TOKEN; 2]);
    assert_eq!(drawn(&[f32::INFINITY, 0.0], &[]), [NO_TOKEN; 2]);
    assert_eq!(drawn(&[f32::NEG_INFINITY, 0.0], &[]), [1, 1]);
    // and where it is far from the others
    let mut many = vec![0.0; 5000];
    many[4321] = f32::NAN;
    assert_eq!(drawn(&many, &[4321]), [NO_TOKEN; 2]);
}
