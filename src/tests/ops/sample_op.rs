//! Drawing on the device against the sampler on the host, draw by draw, and against the probabilities themselves.
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{FRAME, FRAME_ROW, NO_TOKEN, RingParams, Sample, SamplerState};
use crate::tests::support::{gpu, noise};
use crate::text::{Sampler, SamplerSettings};
use pollster::block_on;

const RING: RingParams = RingParams { sinks: 2, window: 5, slots: 9 };

fn bits(banned: &[u32], vocab: usize) -> Vec<u32> {
    let mut bits = vec![0u32; vocab.div_ceil(32)];
    banned.iter().for_each(|&id| bits[id as usize / 32] |= 1 << (id % 32));
    bits
}

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
    let mut sampler = Sampler::new(by.clone(), vocab, &[]).unwrap();
    recent.iter().for_each(|&id| sampler.accept(id));
    draws.tell(gpu, &sampler);
    // On the host a ban of all is refused.
    draws.banned.write(gpu, 0, &bits(banned, vocab));
    let logits = Tensor::upload(gpu, "logits", &[1, vocab], logits).unwrap();
    let token = Tensor::upload(gpu, "token", &[1], &[9u32]).unwrap();
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &[3u32, 1, 1, 0]).unwrap();
    let chosen = Tensor::upload(gpu, "chosen", &[count], &vec![7u32; count]).unwrap();
    let mut recording = Recording::default();
    op.record(&mut recording, "test", RING, &draws, [&logits, &token, &frame, &chosen]).unwrap();
    let program = recording.finish(gpu).unwrap();
    gpu.run_times(count, &[&program], &[]);
    let chosen: Vec<u32> = block_on(chosen.read(gpu)).unwrap();
    let last: Vec<u32> = block_on(token.read(gpu)).unwrap();
    // A step that goes on from no token must still read a row that is there.
    assert_eq!(last[0], (*chosen.last().unwrap()).min(vocab as u32 - 1));
    chosen
}

/// The same on the host.
fn expected_of(
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
        SamplerSettings { temperature: 0.0, ..penalties.clone() },
        SamplerSettings { bias: vec![(0, 5.0), (20, 3.5), (36, -90.0)], ..off.clone() },
        SamplerSettings { bias: vec![(20, 9.0), (20, -1.5), (19, 8.0)], top_k: 4, ..penalties },
        SamplerSettings { bias: vec![(7, 2.0)], temperature: 0.0, ..off },
    ];
    for (i, by) in cases.iter().enumerate() {
        for (seed, vocab) in [(1u64, 1usize), (2, 37), (3, 1000), (1 << 40, 5003)] {
            let bias = by.bias.iter().copied().filter(|(id, _)| (*id as usize) < vocab).collect();
            let by = SamplerSettings { seed, bias, ..by.clone() };
            let plain: Vec<f32> = noise(seed, vocab).iter().map(|v| 6.0 * v).collect();
            // many that are equal, so that the order of ids decides
            let equal: Vec<f32> = plain.iter().map(|v| (v / 1.5).round() * 1.5).collect();
            let banned = if vocab > 1 { vec![vocab as u32 / 2, 0] } else { vec![] };
            let recent: Vec<u32> = (0..9).map(|n| n * 5 % vocab as u32).collect();
            for logits in [&plain, &equal] {
                let found = drawn((&gpu, &op), &by, logits, &banned, &recent, 12);
                let expected = expected_of(&by, logits, &banned, &recent, 12);
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
                let expected = expected_of(&by, logits, &banned, &recent, 3);
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
            assert_eq!(found, expected_of(&by, logits, &[], &[], 40), "{by:?}");
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
    let drawn_by = |by: &SamplerSettings, logits: &[f32], banned: &[u32]| {
        drawn((&gpu, &op), by, logits, banned, &[], 2)
    };
    let drawn = |logits: &[f32], banned: &[u32]| drawn_by(&by, logits, banned);
    assert_eq!(drawn(&[1.0, 2.0], &[0, 1]), [NO_TOKEN; 2]);
    assert_eq!(drawn(&[1.0, f32::NAN], &[]), [NO_TOKEN; 2]);
    assert_eq!(drawn(&[f32::INFINITY, 0.0], &[]), [NO_TOKEN; 2]);
    assert_eq!(drawn(&[f32::NEG_INFINITY, 0.0], &[]), [1, 1]);
    // and where it is far from the others
    let mut many = vec![0.0; 5000];
    many[4321] = f32::NAN;
    assert_eq!(drawn(&many, &[4321]), [NO_TOKEN; 2]);
    // What is added makes nothing a number that is none, and the least of all stays it.
    let by = |temperature| SamplerSettings { temperature, bias: vec![(0, 9.0)], ..by.clone() };
    for by in [by(0.0), by(0.8)] {
        let found = |logits: &[f32]| drawn_by(&by, logits, &[]);
        assert_eq!(found(&[f32::NAN, 1.0]), [NO_TOKEN; 2]);
        assert_eq!(found(&[f32::INFINITY, 1.0]), [NO_TOKEN; 2]);
        assert_eq!(found(&[f32::NEG_INFINITY, 1.0]), [1, 1]);
        assert_eq!(found(&[1.0, f32::NAN]), [NO_TOKEN; 2]);
    }
}

/// Each row by what its stream has; rows beyond those that there are, and streams that have none, stay as they are.
#[test]
fn every_row_draws_as_its_stream_would_by_itself() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let off = SamplerSettings { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerSettings::default() };
    let penalties = SamplerSettings {
        repeat_penalty: 1.4,
        frequency_penalty: 0.3,
        penalty_last_n: 3,
        ..off.clone()
    };
    let kinds = [
        SamplerSettings::default(),
        SamplerSettings { temperature: 0.0, ..off.clone() },
        SamplerSettings { bias: vec![(3, 4.0), (8, -100.0)], top_k: 3, ..penalties.clone() },
        penalties.clone(),
        SamplerSettings { bias: vec![(1, 3.0)], temperature: 0.0, ..off.clone() },
        SamplerSettings { top_p: 0.6, ..off },
        SamplerSettings { temperature: 0.0, ..penalties },
    ];
    const STEPS: usize = 64;
    for (vocab, streams, rows) in [(37, 1, 1), (1500, 7, 5), (3000, 23, 21)] {
        let state = SamplerState::of_streams(&gpu, vocab, streams).unwrap();
        let wide = vocab.next_multiple_of(FRAME_ROW);
        let mut logits = vec![f32::NAN; streams * wide];
        let mut frames = vec![0u32; streams * FRAME_ROW];
        let mut expected = vec![7u32; streams * STEPS];
        frames[1] = rows as u32;
        let stream_of = |row: usize| (row * 2 + 1) % streams;
        for row in 0..streams {
            let stream = stream_of(row);
            let by = SamplerSettings { seed: row as u64, ..kinds[row % kinds.len()].clone() };
            let of_row: Vec<f32> = noise(row as u64, vocab).iter().map(|v| 5.0 * v).collect();
            logits[row * wide..][..vocab].copy_from_slice(&of_row);
            frames[row * FRAME_ROW] = 3;
            frames[row * FRAME_ROW + 2] = (stream as u32) << 1 | 1;
            let banned = [stream as u32, 30];
            let mut sampler = Sampler::new(by.clone(), vocab, &banned).unwrap();
            [5, 9, 5, 12].into_iter().for_each(|id| sampler.accept(id));
            state.stream(stream).tell(&gpu, &sampler);
            if row < rows {
                let alone = expected_of(&by, &of_row, &banned, &[5, 9, 5, 12], 6);
                expected[row * STEPS..][..6].copy_from_slice(&alone);
            }
        }
        let upload = |label: &str, row: usize, data: &[u32]| {
            Tensor::upload(&gpu, label, &[streams, row], data).unwrap()
        };
        let logits = Tensor::upload(&gpu, "logits", &[streams, wide], &logits).unwrap();
        let token = upload("token", FRAME_ROW, &vec![9; streams * FRAME_ROW]);
        let frame = upload("frame", FRAME_ROW, &frames);
        let chosen = upload("chosen", STEPS, &vec![7; streams * STEPS]);
        let mut recording = Recording::default();
        op.record(&mut recording, "test", RING, &state, [&logits, &token, &frame, &chosen])
            .unwrap();
        let program = recording.finish(&gpu).unwrap();
        let before: Vec<u32> = block_on(state.state.read(&gpu)).unwrap();
        gpu.run_times(6, &[&program], &[]);
        let found: Vec<u32> = block_on(chosen.read(&gpu)).unwrap();
        assert_eq!(found, expected, "{vocab} tokens, {rows} rows of {streams} streams");
        let (tokens, moved): (Vec<u32>, Vec<u32>) =
            (block_on(token.read(&gpu)).unwrap(), block_on(frame.read(&gpu)).unwrap());
        let after: Vec<u32> = block_on(state.state.read(&gpu)).unwrap();
        let of_stream = before.len() / streams;
        for row in 0..streams {
            let (goes, stream) = (row < rows, stream_of(row));
            assert_eq!(tokens[row * FRAME_ROW], if goes { expected[row * STEPS + 5] } else { 9 });
            assert_eq!(moved[row * FRAME_ROW + 3], if goes { 6 } else { 0 });
            let of = |words: &[u32]| words[stream * of_stream..][..of_stream].to_vec();
            assert_eq!(of(&before) == of(&after), !goes, "row {row}");
        }
    }
}

#[test]
fn what_has_no_room_in_a_row_is_refused() {
    let gpu = gpu();
    let op = block_on(Sample::new(&gpu)).unwrap();
    let state = SamplerState::of_streams(&gpu, 100, 2).unwrap();
    let by = SamplerSettings { penalty_last_n: 5000, ..SamplerSettings::default() };
    state.expect(&by).unwrap();
    let error = state.expect(&SamplerSettings { repeat_penalty: 1.1, ..by }).unwrap_err();
    let works = "penalty_last_n 5000: at most 4156 works among streams that share their passes";
    assert_eq!(error.to_string(), works);
    let make = |rows, row| Tensor::zeros(&gpu, "t", &[rows, row]).unwrap();
    let (wide, frame, chosen) = (make(2, 128), make(2, FRAME_ROW), make(2, 64));
    let record = |logits: &Tensor, token: &Tensor| {
        let tensors = [logits, token, &frame, &chosen];
        op.record(&mut Recording::default(), "test", RING, &state, tensors)
            .map_err(|e| e.to_string())
    };
    record(&wide, &frame).unwrap();
    let told = |result: Result<(), String>, what: &str| assert_eq!(result.unwrap_err(), what);
    told(
        record(&make(2, 64), &frame),
        "sample: t has shape [2, 64], expected [2, 100], or as wide as biases are",
    );
    told(record(&wide, &make(1, FRAME_ROW)), "sample: t has shape [1, 64], expected [2, 64]");
}
