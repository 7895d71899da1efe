//! argmax, nll and others against their twins.
use super::run;
use crate::gpu::{Recording, Tensor};
use crate::model::reduce;
use crate::ops::{
    AddPosition, AddPositionParams, Argmax, FRAME, NO_TOKEN, Nll, NllParams, Peak, PeakParams,
    RingParams, Softcap, SoftcapParams,
};
use crate::reference;
use crate::tests::loops::class;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

fn ring() -> RingParams {
    RingParams { sinks: 2, window: 3, slots: 5 }
}

#[test]
fn argmax_moves_the_frame_on_as_the_host_would() {
    let gpu = gpu();
    let op = block_on(Argmax::new(&gpu)).unwrap();
    let upload = |shape: &[usize], data: &[u32]| Tensor::upload(&gpu, "t", shape, data).unwrap();
    let logits = Tensor::upload(&gpu, "logits", &[1, 3], &[1.0f32, 3.0, 2.0]).unwrap();
    let (banned, token, chosen) = (upload(&[1], &[0]), upload(&[1], &[0]), upload(&[4], &[9; 4]));
    for t in [0, 1, 5, 6, 7, 11, 12, 40, (1 << 33) + 3] {
        let frame = upload(&[FRAME], &[reduce(t, ring()), 1, 0, 0]);
        // six steps in one submission, two more than there is room for
        let mut recording = Recording::default();
        for _ in 0..6 {
            let tensors = [&logits, &banned, &token, &frame, &chosen];
            op.record(&mut recording, "test", ring(), tensors).unwrap();
        }
        run(&gpu, recording);
        let found: Vec<u32> = block_on(frame.read(&gpu)).unwrap();
        assert_eq!(found, [reduce(t + 6, ring()), 1, 0, 6], "t = {t}");
        let noted: Vec<u32> = block_on(chosen.read(&gpu)).unwrap();
        assert_eq!(noted, [1; 4]);
    }
}

#[test]
fn argmax() {
    let gpu = gpu();
    let op = block_on(Argmax::new(&gpu)).unwrap();
    let mut cases: Vec<(Vec<f32>, Vec<usize>)> = vec![
        (vec![-7.0], vec![]),
        (vec![-7.0], vec![0]),
        (vec![f32::NAN; 5], vec![]),
        (vec![f32::NAN, -1.0, f32::NAN], vec![]),
        // one rule, whoever chooses: one that is not a number spoils all, be it banned; -inf is never chosen
        (vec![-f32::NAN, -1.0, 3.0], vec![0]),
        (vec![1.0, f32::INFINITY, 3.0], vec![]),
        (vec![f32::NEG_INFINITY, -5.0, f32::NEG_INFINITY], vec![]),
        (vec![f32::NEG_INFINITY; 300], vec![]),
        (vec![2.0; 300], vec![]),           // ties: the lowest
        (vec![2.0; 300], vec![0, 1, 2, 5]), // ties and bans
    ];
    for (seed, len) in [(1, 31), (2, 257), (3, 1000), (4, 49152)] {
        let logits = noise(seed, len);
        let best = reference::argmax(&logits, &vec![0; len.div_ceil(32)]) as usize;
        cases.push((logits.clone(), vec![]));
        cases.push((logits, vec![best, len - 1]));
    }
    for (logits, bans) in cases {
        let mut banned = vec![0u32; logits.len().div_ceil(32)];
        bans.iter().for_each(|id| banned[id / 32] |= 1 << (id % 32));
        let expected = reference::argmax(&logits, &banned);
        let shape = [1, logits.len()];
        let tensor = Tensor::upload(&gpu, "logits", &shape, &logits).unwrap();
        let bits = Tensor::upload(&gpu, "banned", &[banned.len()], &banned).unwrap();
        let token = Tensor::upload(&gpu, "token", &[3], &[7u32, 8, 9]).unwrap();
        let frame = Tensor::upload(&gpu, "frame", &[FRAME], &[3u32, 1, 1, 1]).unwrap();
        let chosen = Tensor::upload(&gpu, "chosen", &[3], &[4u32, 5, 6]).unwrap();
        let mut recording = Recording::default();
        let tensors = [&tensor, &bits, &token, &frame, &chosen];
        op.record(&mut recording, "test", ring(), tensors).unwrap();
        run(&gpu, recording);
        let noted: Vec<u32> = block_on(chosen.read(&gpu)).unwrap();
        assert_eq!(noted, [4, expected, 6], "the element of its step");
        let found: Vec<u32> = block_on(token.read(&gpu)).unwrap();
        // A step that goes on from no token must still read a row that is there.
        let next = expected.min(logits.len() as u32 - 1);
        assert_eq!(found, [next, 8, 9], "{} logits without {bans:?}", logits.len());
        assert!(expected == NO_TOKEN || !bans.contains(&(expected as usize)));
    }
}

#[test]
fn nll() {
    let gpu = gpu();
    let op = block_on(Nll::new(&gpu)).unwrap();
    // one token; odd; one over a workgroup; a real vocabulary; logits whose exponentials overflow
    for (rows, vocab, scale) in [
        (1, 1, 1.0),
        (3, 7, 4.0),
        (2, 65, 20.0),
        (5, 257, 500.0),
        (2, 333, 1e30),
        (3, 49_152, 12.0),
    ] {
        let logits: Vec<f32> = noise(1, (rows + 1) * vocab).iter().map(|x| x * scale).collect();
        let targets: Vec<u32> = (0..=rows).map(|row| ((row * 31 + 5) % vocab) as u32).collect();
        let mut expected = vec![0.0; rows];
        let params = NllParams { vocab: vocab as u32 };
        reference::nll(params, &logits, &targets[..rows], &mut expected);
        // One row more than there are tokens: it is left alone.
        let frame = Tensor::upload(&gpu, "frame", &[FRAME], &[9u32, rows as u32, 1, 0]).unwrap();
        let logits = Tensor::upload(&gpu, "logits", &[rows + 1, vocab], &logits).unwrap();
        let targets = Tensor::upload(&gpu, "targets", &[rows + 1], &targets).unwrap();
        let nll = Tensor::upload(&gpu, "nll", &[rows + 1], &vec![f32::NAN; rows + 1]).unwrap();
        let mut recording = Recording::default();
        op.record(&mut recording, "test", [&frame, &logits, &targets, &nll]).unwrap();
        run(&gpu, recording);
        let found: Vec<f32> = block_on(nll.read(&gpu)).unwrap();
        let what = format!("nll {rows}x{vocab}, up to {scale}");
        assert_close(&what, &found[..rows], &expected, 2e-5, 1e-6);
        assert!(found[rows].is_nan(), "{what} wrote beyond");
    }
}

#[test]
fn nll_of_what_is_not_a_number_is_not_a_number() {
    let gpu = gpu();
    let op = block_on(Nll::new(&gpu)).unwrap();
    let mut logits = noise(1, 200);
    logits[150] = f32::NAN;
    let frame = Tensor::upload(&gpu, "frame", &[FRAME], &[0u32, 1, 1, 0]).unwrap();
    let logits = Tensor::upload(&gpu, "logits", &[1, 200], &logits).unwrap();
    let targets = Tensor::upload(&gpu, "targets", &[1], &[3u32]).unwrap();
    let nll = Tensor::zeros(&gpu, "nll", &[1]).unwrap();
    let mut recording = Recording::default();
    op.record(&mut recording, "test", [&frame, &logits, &targets, &nll]).unwrap();
    run(&gpu, recording);
    assert!(!block_on(nll.read::<f32>(&gpu)).unwrap()[0].is_finite());
    let short = Tensor::zeros(&gpu, "short", &[2]).unwrap();
    let error = op.record(&mut Recording::default(), "test", [&frame, &logits, &short, &nll]);
    assert_eq!(error.unwrap_err().to_string(), "nll: short has shape [2], expected [1]");
}

#[test]
fn peak() {
    let gpu = gpu();
    let op = block_on(Peak::new(&gpu)).unwrap();
    for (groups, steps) in [(1, 0), (1, 1), (3, 5), (2, 40)] {
        let params = PeakParams { steps, a: 0.9, b: 1.5 };
        let shape = [groups, op.lanes() as usize];
        let mut expected = vec![0.0; shape[0] * shape[1]];
        reference::peak(params, &mut expected);
        let y = Tensor::upload(&gpu, "y", &shape, &vec![f32::NAN; expected.len()]).unwrap();
        let mut recording = Recording::default();
        op.record(&mut recording, "test", params, &y).unwrap();
        run(&gpu, recording);
        let found: Vec<f32> = block_on(y.read(&gpu)).unwrap();
        assert_close(&format!("peak {groups} {steps}"), &found, &expected, 1e-4, 1e-5);
    }
    let two = Tensor::zeros(&gpu, "t", &[2, 1]).unwrap();
    let params = PeakParams { steps: 1, a: 0.9, b: 1.5 };
    let error = op.record(&mut Recording::default(), "test", params, &two).unwrap_err();
    assert!(error.to_string().starts_with("peak: t has shape [2, 1]"), "{error}");
}

#[test]
fn softcap() {
    let gpu = gpu();
    let op = block_on(Softcap::new(&gpu)).unwrap();
    // one; odd; one over a workgroup's; a real vocabulary; up to the bound, far beyond it, and beyond all exponentials
    for (rows, vocab, cap, scale) in [
        (1, 1, 5.0, 4.0),
        (3, 7, 30.0, 40.0),
        (2, 257, 30.0, 1e4),
        (1, 1031, 0.5, 1e30),
        (2, 50_257, 50.0, 9.0),
    ] {
        let logits: Vec<f32> = noise(1, rows * vocab).iter().map(|x| x * scale).collect();
        for hard in [0, 1] {
            let mut expected = logits.clone();
            reference::softcap(SoftcapParams { cols: vocab as u32, cap, hard }, &mut expected);
            let y = Tensor::upload(&gpu, "y", &[rows, vocab], &logits).unwrap();
            let mut recording = Recording::default();
            match hard {
                0 => op.record(&mut recording, "test", cap, &y).unwrap(),
                _ => op.record_clamp(&mut recording, "test", cap, &y).unwrap(),
            }
            run(&gpu, recording);
            let found: Vec<f32> = block_on(y.read(&gpu)).unwrap();
            let what = format!("softcap {rows}x{vocab} {cap} {hard}");
            assert_close(&what, &found, &expected, 1e-30, 1.5e-6);
        }
    }
    let y = Tensor::zeros(&gpu, "y", &[1, 3]).unwrap();
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = op.record(&mut Recording::default(), "test", cap, &y).unwrap_err().to_string();
        assert!(error.contains(&format!("a bound of {cap}")), "{error}");
    }
}

#[test]
fn softcap_of_what_is_not_a_number_and_of_the_largest_vocabulary() {
    let gpu = gpu();
    let y = [f32::NAN, f32::INFINITY, -1.0, -f32::NAN, f32::NEG_INFINITY];
    let y = Tensor::upload(&gpu, "y", &[1, 5], &y).unwrap();
    let mut recording = Recording::default();
    let op = block_on(Softcap::new(&gpu)).unwrap();
    op.record(&mut recording, "test", 30.0, &y).unwrap();
    run(&gpu, recording);
    let found: Vec<f32> = block_on(y.read(&gpu)).unwrap();
    assert!(found[0].is_nan() && found[3].is_nan(), "{found:?}");
    assert_eq!([found[1], found[4]], [30.0, -30.0]);
    // The fewest lanes that a device has.
    let gpu = class(true, Some(4));
    let y = Tensor::zeros(&gpu, "y", &[1, 262_144]).unwrap();
    let mut recording = Recording::default();
    let op = block_on(Softcap::new(&gpu)).unwrap();
    op.record(&mut recording, "test", 30.0, &y).unwrap();
    let (_, work) = recording.works().next().unwrap();
    assert_eq!(work.grid, [16_384, 1, 1]);
}

#[test]
fn add_position() {
    let gpu = gpu();
    let op = block_on(AddPosition::new(&gpu)).unwrap();
    for (room, tokens, cols, n, positions) in [(1, 1, 1, 0, 1), (1, 1, 65, 6, 7), (5, 4, 771, 3, 9)]
    {
        let (w, x) = (noise(1, positions * cols), noise(2, room * cols));
        let mut expected = x.clone();
        let params = AddPositionParams { cols: cols as u32, positions: positions as u32 };
        reference::add_position(params, n, &w, &mut expected[..tokens * cols]);
        let frame = [n as u32, tokens as u32, 1, 0];
        let frame = Tensor::upload(&gpu, "frame", &[FRAME], &frame).unwrap();
        let w = Tensor::upload(&gpu, "w", &[positions, cols], &w).unwrap();
        let x = Tensor::upload(&gpu, "x", &[room, cols], &x).unwrap();
        let mut recording = Recording::default();
        op.record(&mut recording, "test", [&frame, &w, &x]).unwrap();
        run(&gpu, recording);
        let found: Vec<f32> = block_on(x.read(&gpu)).unwrap();
        assert_close(&format!("add_position {tokens} of {cols}"), &found, &expected, 1e-7, 1e-6);
    }
    let [frame, w, x] =
        [&[FRAME][..], &[2, 3], &[1, 4]].map(|s| Tensor::zeros(&gpu, "t", s).unwrap());
    let error = op.record(&mut Recording::default(), "test", [&frame, &w, &x]).unwrap_err();
    assert_eq!(error.to_string(), "add_position: t has shape [1, 4], expected [1, 3]");
}
