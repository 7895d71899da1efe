//! norm and head_norm against their twins.
use super::{run, sums};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{
    Added, FRAME, HeadNorm, HeadNormParams, Next, Norm, NormAdded, NormKind, NormParams, Sums,
};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

/// large enough to matter: with 1e-6 a kernel that forgets it passes
const EPS: f32 = 0.1;
/// Of what is added up.
const SCALE: f32 = 0.75;

const KINDS: [NormKind; 2] = [NormKind::Rms, NormKind::Layer];

/// Numbers far from zero, whose variance a mean of squares less the square of the mean would lose; and how close sums of
/// them in f32 are to come.
fn rows(kind: NormKind, seed: u64, len: usize) -> (Vec<f32>, f32) {
    match kind {
        NormKind::Rms => (noise(seed, len), 1e-6),
        NormKind::Layer => (noise(seed, len).iter().map(|v| v + 20.0).collect(), 5e-5),
    }
}

#[test]
fn norm() {
    let gpu = gpu();
    for sums in sums(&gpu) {
        KINDS.into_iter().for_each(|kind| check_norm(&gpu, sums, kind));
    }
}

fn check_norm(gpu: &Gpu, sums: Sums, kind: NormKind) {
    let op = block_on(Norm::new(gpu, sums, kind)).unwrap();
    let add = block_on(NormAdded::new(gpu, sums, kind)).unwrap();
    assert_eq!(add.has_next(), kind == NormKind::Rms);
    // one column; a row that does not fill a workgroup; one over; real sizes; by turns with and without a bias
    let shapes = [(1, 1), (3, 7), (2, 65), (1, 2048), (5, 4096)];
    for ((rows, cols), biased) in shapes.into_iter().zip([true, false, true, false, true]) {
        let has_bias = u32::from(biased);
        let params = NormParams { cols: cols as u32, has_bias, eps: EPS };
        // One row more than there are tokens: it is left alone.
        let (x, atol) = self::rows(kind, 1, (rows + 1) * cols);
        let (w, b, start) = (noise(2, cols), noise(3, cols), noise(4, (rows + 1) * cols));
        let mut expected = vec![0.0; rows * cols];
        reference::norm(kind, params, [&x[..rows * cols], &w, &b], &mut expected);
        let upload = |shape: &[usize], data: &[f32]| Tensor::upload(gpu, "t", shape, data).unwrap();
        let frame = Tensor::upload(gpu, "frame", &[FRAME], &[9u32, rows as u32, 1, 0]).unwrap();
        let (x, w, b) = (upload(&[rows + 1, cols], &x), upload(&[cols], &w), upload(&[cols], &b));
        let nan = vec![f32::NAN; (rows + 1) * cols];
        let (y, last) = (upload(&[rows + 1, cols], &nan), upload(&[1, cols], &nan[..cols]));
        let [alone, with_next] = [(); 2].map(|()| upload(&[rows + 1, cols], &start));
        let (gain, yn) = (upload(&[cols], &noise(5, cols)), upload(&[rows + 1, cols], &nan));
        let (mut r, bias) = (Recording::default(), biased.then_some(&b));
        op.record(&mut r, "test", EPS, [&frame, &x, &w, &y], bias).unwrap();
        op.record_last(&mut r, "test", EPS, [&frame, &x, &w, &last], bias).unwrap();
        let added = Added { x: &x, gain: &w, bias, eps: EPS, scale: SCALE };
        add.record(&mut r, "test", [&frame, &alone], added, None).unwrap();
        let next = Next { gain: &gain, eps: 2.0 * EPS, yn: &yn };
        let followed = add.record(&mut r, "test", [&frame, &with_next], added, Some(next));
        assert_eq!(followed.is_ok(), add.has_next());
        run(gpu, r);

        let what = format!("{kind:?} norm {sums:?} {rows}x{cols}");
        let found: Vec<f32> = block_on(y.read(gpu)).unwrap();
        let (found, beyond) = found.split_at(rows * cols);
        assert_close(&what, found, &expected, atol, 1e-5);
        assert!(beyond.iter().all(|v| v.is_nan()), "{what} wrote beyond");
        let found: Vec<f32> = block_on(last.read(gpu)).unwrap();
        let of_last = &expected[(rows - 1) * cols..];
        assert_close(&format!("{what}, the last"), &found, of_last, atol, 1e-5);
        let sum: Vec<f32> =
            start.iter().zip(&expected).map(|(start, y)| (start + y) * SCALE).collect();
        for added in [Some(&alone), add.has_next().then_some(&with_next)].into_iter().flatten() {
            let found: Vec<f32> = block_on(added.read(gpu)).unwrap();
            let (found, beyond) = found.split_at(rows * cols);
            assert_close(&format!("{what}, added"), found, &sum, atol, 1e-5);
            assert_eq!(beyond, &start[rows * cols..], "{what} added beyond");
        }
        if add.has_next() {
            let params = NormParams { has_bias: 0, eps: 2.0 * EPS, ..params };
            reference::norm(kind, params, [&sum, &noise(5, cols), &[]], &mut expected);
            let found: Vec<f32> = block_on(yn.read(gpu)).unwrap();
            let (found, beyond) = found.split_at(rows * cols);
            assert_close(&format!("{what}, the next"), found, &expected, atol, 1e-5);
            assert!(beyond.iter().all(|v| v.is_nan()), "{what} wrote beyond the next");
        }
    }
}

#[test]
fn norm_refuses_a_wrong_shape() {
    let gpu = gpu();
    let op = block_on(Norm::new(&gpu, Sums::Shared, NormKind::Rms)).unwrap();
    let make = |name: &str, shape: &[usize]| Tensor::zeros(&gpu, name, shape).unwrap();
    let [frame, x] = [make("frame", &[FRAME]), make("x", &[2, 8])];
    let [seven, eight, y] = [make("w", &[7]), make("v", &[8]), make("y", &[2, 8])];
    let recording = &mut Recording::default();
    let error = op.record(recording, "test", 1e-6, [&frame, &x, &seven, &y], None).unwrap_err();
    assert_eq!(error.to_string(), "norm: w has shape [7], expected [8]");
    let tensors = [&frame, &x, &eight, &y];
    let error = op.record(recording, "test", 1e-6, tensors, Some(&seven)).unwrap_err();
    assert_eq!(error.to_string(), "norm: w has shape [7], expected [8]");
    let op = block_on(NormAdded::new(&gpu, Sums::Shared, NormKind::Rms)).unwrap();
    let (bias, yn) = (None, make("yn", &[2, 7]));
    let refused = |recording: &mut Recording, gain, next| {
        let added = Added { x: &x, gain, bias, eps: 1e-6, scale: 1.0 };
        op.record(recording, "test", [&frame, &y], added, next).unwrap_err().to_string()
    };
    let error = refused(recording, &seven, None);
    assert_eq!(error, "norm_added: w has shape [7], expected [8]");
    let next = Next { gain: &eight, eps: 1e-6, yn: &yn };
    let error = refused(recording, &eight, Some(next));
    assert_eq!(error, "norm_added: yn has shape [2, 7], expected [2, 8]");
}

/// Heads, whole rows, rows of gains for each head, values too, a row that goes on behind them.
const GROUPS: [HeadNormParams; 7] = [
    of([1, 8, 1, 8], [0, 0], 24),
    of([3, 24, 1, 24], [0, 0], 120),
    of([2, 72, 2, 72], [2, 1], 432),
    of([16, 128, 8, 128], [0, 0], 4096),
    of([1, 2080, 1, 520], [0, 0], 3120),
    of([4, 48, 1, 512], [1, 0], 1300),
    of([0, 7, 3, 33], [3, 1], 198),
];

const fn of(qk: [u32; 4], [v_norms, own]: [u32; 2], stride: u32) -> HeadNormParams {
    let [q_norms, q_size, k_norms, k_size] = qk;
    HeadNormParams { stride, q_norms, q_size, k_norms, k_size, v_norms, own, eps: EPS }
}

#[test]
fn head_norm() {
    let gpu = gpu();
    for sums in sums(&gpu) {
        for kind in KINDS {
            let op = block_on(HeadNorm::new(&gpu, sums, kind)).unwrap();
            for (params, tokens) in GROUPS.into_iter().zip([1, 2, 3, 2, 2, 1, 2]) {
                let width = params.stride as usize;
                let gain = noise(1, params.gains());
                let (qkv, atol) = rows(kind, 2, (tokens + 1) * width);
                let mut expected = qkv.clone();
                // One row more than there are tokens: it is left alone.
                reference::head_norm(kind, params, &gain, &mut expected[..tokens * width]);
                let frame = [9, tokens as u32, 1, 0];
                let frame = Tensor::upload(&gpu, "frame", &[FRAME], &frame).unwrap();
                let gain = Tensor::upload(&gpu, "gain", &[gain.len()], &gain).unwrap();
                let qkv = Tensor::upload(&gpu, "qkv", &[tokens + 1, width], &qkv).unwrap();
                let mut recording = Recording::default();
                op.record(&mut recording, "test", params, [&frame, &gain, &qkv]).unwrap();
                run(&gpu, recording);
                let found: Vec<f32> = block_on(qkv.read(&gpu)).unwrap();
                let what = format!("head_norm {sums:?} {kind:?} {params:?}");
                assert_close(&what, &found, &expected, atol, 1e-5);
            }
        }
    }
}

#[test]
fn head_norm_refuses_a_wrong_shape() {
    let gpu = gpu();
    let op = block_on(HeadNorm::new(&gpu, Sums::Shared, NormKind::Rms)).unwrap();
    let [frame, gain, qkv] =
        [&[FRAME][..], &[16], &[1, 24]].map(|shape| Tensor::zeros(&gpu, "t", shape).unwrap());
    let params = HeadNormParams::of_heads(1, 1, 8, 0.1);
    let refused = |params, gain| {
        let r = &mut Recording::default();
        op.record(r, "test", params, [&frame, gain, &qkv]).unwrap_err().to_string()
    };
    assert_eq!(refused(params, &frame), "head_norm: t has shape [4], expected [16]");
    let wide = HeadNormParams { v_norms: 2, ..params };
    assert_eq!(refused(wide, &gain), "head_norm: t has shape [1, 24], expected [1, 32] or wider");
    let stride = HeadNormParams { stride: 16, ..params };
    assert_eq!(refused(stride, &gain), "head_norm: t has shape [1, 24], expected [1, 16]");
}
