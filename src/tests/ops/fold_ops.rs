//! LayerNorms, biases and blocks beside one another, folded into the products of the decode step.
use super::fused_ops::{EPS, nan, read, upload, vector};
use super::weight_ops::{Matrices, matrices, products};
use super::{run, variants};
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{
    ActivationType, Epilogue, Folds, Fused, Join, Linear, NormKind, NormParams, Normed, Variant,
    most_partials,
};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

const LAYER: Folds = Folds { kind: NormKind::Layer, biased: true, beside: true };

fn op(gpu: &Gpu, dtypes: &[DType], variant: Variant) -> Fused {
    block_on(Fused::new(gpu, &products(dtypes), dtypes, variant, LAYER)).unwrap()
}

/// Activations around a common mean.
fn around(mean: f32, seed: u64, len: usize) -> Vec<f32> {
    noise(seed, len).iter().map(|v| mean + v).collect()
}

/// Number, mean and squares of what is off it, of every few of x, as a writer leaves them; the last few are fewer.
fn partials(x: &[f32], few: usize) -> Vec<f32> {
    let of = |x: &[f32]| {
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
        let off = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
        [x.len() as f32, mean as f32, off as f32]
    };
    x.chunks(few).flat_map(of).collect()
}

/// LayerNorm of x, of which times the gain is multiplied as if it were `multiplied`.
fn check_normed(
    gpu: &Gpu,
    op: &Fused,
    (m, w): (&Matrices, &Linear),
    (what, close): (&str, f32),
    [x, gain, multiplied]: [&[f32]; 3],
) {
    let (rows, cols, weights) = (w.rows, w.cols, m.plain.concat());
    let (norm_bias, bias) = (noise(33, cols), noise(34, rows));
    let mut xn = vec![0.0; cols];
    let params = NormParams { cols: cols as u32, has_bias: 1, eps: EPS };
    reference::norm(NormKind::Layer, params, [x, gain, &norm_bias], &mut xn);
    let off = |xn: &mut [f32]| {
        let [_, _, squares] = partials(x, cols)[..] else { panic!("three numbers") };
        let scale = 1.0 / (squares / cols as f32 + EPS).sqrt();
        xn.iter_mut().zip(multiplied.iter().zip(x).zip(gain)).for_each(|(xn, ((m, x), g))| {
            *xn += (m - x * g) * scale;
        });
    };
    off(&mut xn);
    let product = |x: &[f32], bias: &[f32]| {
        let mut y = vec![0.0; rows];
        reference::matmul(Epilogue::Store, [x, &weights, bias], cols, rows, &mut y);
        y
    };
    let expected = product(&xn, &bias);
    let terms = [product(&norm_bias, &bias), product(gain, &[])].concat();
    let terms = Tensor::upload(gpu, "terms", &[2, rows], &terms).unwrap();
    let scaled: Vec<f32> = x.iter().zip(gain).map(|(x, g)| x * g).collect();
    let (xn, y) = (upload(gpu, &scaled), nan(gpu, &[1, rows]));
    for few in [4, 7, cols] {
        let sums = partials(x, few);
        let count = sums.len() as u32 / 3;
        let sums = vector(gpu, &[&sums[..], &[f32::NAN; 3]].concat());
        let (mut r, input) =
            (Recording::default(), Normed { xn: &xn, sums: &sums, partials: count });
        let epilogue = Epilogue::Store;
        op.record_normed(&mut r, "test", epilogue, EPS, input, &y, w, Some(&terms)).unwrap();
        run(gpu, r);
        let what = format!("{what} {rows}x{cols}, sums of {few}");
        assert_close(&what, &read(gpu, &y), &expected, close, close);
    }
    // What is normed already is only multiplied.
    let bias_alone = vector(gpu, &bias);
    for bias_of_it in [None, Some(&bias_alone)] {
        let expected = product(multiplied, if bias_of_it.is_some() { &bias } else { &[] });
        let sums = nan(gpu, &[1]);
        let (mut r, input) = (Recording::default(), Normed { xn: &xn, sums: &sums, partials: 0 });
        let epilogue = Epilogue::Store;
        op.record_normed(&mut r, "test", epilogue, EPS, input, &y, w, bias_of_it).unwrap();
        run(gpu, r);
        let what = format!("{what} {rows}x{cols}, normed already");
        assert_close(&what, &read(gpu, &y), &expected, close, close);
    }
}

/// y += x w^T + bias, then what the next norm needs; or, beside another block, what this one needed.
fn check_residual(
    gpu: &Gpu,
    op: &Fused,
    (m, w): (&Matrices, &Linear),
    what: &str,
    [x, multiplied]: [&[f32]; 2],
) {
    let (rows, cols, weights) = (w.rows, w.cols, m.plain.concat());
    let (gain, bias, before) = (noise(42, rows), noise(44, rows), around(20.0, 43, rows));
    let mut after = before.clone();
    let inputs = [multiplied, &weights, &bias];
    reference::matmul(Epilogue::Add, inputs, cols, rows, &mut after);
    let post = Tensor::upload(gpu, "post", &[2, rows], &[gain.clone(), bias].concat()).unwrap();
    for beside in [false, true] {
        let (input, y) = (upload(gpu, x), upload(gpu, &before));
        let yn = nan(gpu, &[1, rows]);
        let sums = nan(gpu, &[3 * most_partials(rows, w.parts.len())]);
        let mut r = Recording::default();
        let tensors = [&input, &post, &y, &yn, &sums];
        let count = match beside {
            true => op.record_beside(&mut r, "test", tensors, w).map(|()| 0),
            false => op.record_residual(&mut r, "test", tensors, w),
        };
        run(gpu, r);
        let what = format!("{what} {rows}x{cols}, beside: {beside}");
        assert_close(&what, &read(gpu, &y), &after, 2e-5, 1e-5);
        let stream = if beside { &before } else { &after };
        let scaled: Vec<f32> = stream.iter().zip(&gain).map(|(y, g)| y * g).collect();
        assert_close(&what, &read(gpu, &yn), &scaled, 2e-5, 1e-5);
        check_sums(&what, &read(gpu, &sums), count.unwrap() as usize, &after);
    }
}

/// Mean and variance that partial sums give, and that nothing is written beyond them.
fn check_sums(what: &str, sums: &[f32], count: usize, stream: &[f32]) {
    let (sums, beyond) = sums.split_at(3 * count);
    assert!(beyond.iter().all(|v| v.is_nan()), "{what}: sums beyond {count}");
    if count == 0 {
        return;
    }
    let sums: Vec<f64> = sums.iter().map(|&v| f64::from(v)).collect();
    let number: f64 = sums.chunks(3).map(|sum| sum[0]).sum();
    let mean = sums.chunks(3).map(|sum| sum[0] * sum[1]).sum::<f64>() / number;
    let off: f64 = sums.chunks(3).map(|sum| sum[2] + sum[0] * (sum[1] - mean).powi(2)).sum();
    let expected = partials(stream, stream.len());
    assert_close(
        &format!("{what}: sums"),
        &[number as f32, mean as f32, off as f32],
        &expected,
        2e-5,
        2e-5,
    );
}

/// Kernels are the same text whatever the type: few are tried here.
#[test]
fn layer_norms_fold_into_products() {
    let gpu = gpu();
    let dtypes = [DType::F32, DType::Q4K, DType::Q8_0];
    for variant in variants(&gpu) {
        let op = op(&gpu, &dtypes, variant);
        for (dtype, rows, cols) in [
            (DType::F32, 1, 96),
            (DType::F32, 66, 768),
            (DType::Q8_0, 37, 544),
            (DType::Q4K, 131, 256),
        ] {
            let m = matrices(&[(dtype, rows, cols)]);
            for limit in [u64::MAX, 20_000] {
                let w = &m.load(&gpu, Join::Concat, limit);
                let what = format!("{dtype} {variant:?} in {} parts", w.parts.len());
                let gain = noise(32, cols);
                // The rounding of what is far from zero is that of the stream itself.
                for (mean, close) in [(0.0, 2e-5), (-3.0, 6e-5), (30.0, 5e-4)] {
                    let x = around(mean, 31, cols);
                    let scaled: Vec<f32> = x.iter().zip(&gain).map(|(x, g)| x * g).collect();
                    let what = format!("{what}, mean {mean}");
                    check_normed(&gpu, &op, (&m, w), (&what, close), [&x, &gain, &scaled]);
                }
                let x = noise(41, cols);
                check_residual(&gpu, &op, (&m, w), &what, [&x, &x]);
            }
        }
    }
}

/// Activations are rounded as they come, their mean in them.
#[test]
fn layer_norms_fold_into_products_of_rounded_activations() {
    let gpu = gpu();
    for variant in variants(&gpu) {
        let variant = Variant { activations: ActivationType::Int8, ..variant };
        let (dtype, rows, cols) = (DType::Q8_0, 37, 544);
        let op = op(&gpu, &[dtype], variant);
        let m = matrices(&[(dtype, rows, cols)]);
        let w = &m.load(&gpu, Join::Concat, u64::MAX);
        // The greatest of each 32 is 127 steps, so that what is rounded is told exactly.
        let steps = noise(31, cols).into_iter().enumerate().map(|(i, v)| match i % 32 {
            0 => 127.0 / 64.0,
            _ => (v * 100.0).trunc() / 64.0,
        });
        let (scaled, gain): (Vec<f32>, Vec<f32>) = (steps.collect(), vec![0.5; cols]);
        let x: Vec<f32> = scaled.iter().map(|v| 2.0 * v).collect();
        let what = format!("{variant:?}");
        check_normed(&gpu, &op, (&m, w), (&what, 2e-5), [&x, &gain, &scaled]);
        check_residual(&gpu, &op, (&m, w), &what, [&scaled, &scaled]);
    }
}

#[test]
fn the_embedding_of_one_token_leaves_mean_and_variance() {
    let gpu = gpu();
    for dtype in [DType::F32, DType::Q8_0] {
        let (op, cols) = (op(&gpu, &[dtype], Variant::PLAIN), 96);
        let m = matrices(&[(dtype, 37, cols)]);
        let w = m.load(&gpu, Join::Concat, u64::MAX);
        let (mut expected, gain) = (vec![0.0; cols], noise(51, cols));
        reference::get_rows(&[36], &m.plain[0], cols, 0.75, &mut expected);
        let token = Tensor::upload(&gpu, "tokens", &[1], &[36u32]).unwrap();
        let (x, xn) = (nan(&gpu, &[1, cols]), nan(&gpu, &[1, cols]));
        let sums = nan(&gpu, &[3 * most_partials(cols, 1)]);
        let mut r = Recording::default();
        let tensors = [&token, &vector(&gpu, &gain), &x, &xn, &sums];
        let count = op.record_get_rows(&mut r, "test", 0.75, tensors, &w).unwrap() as usize;
        run(&gpu, r);
        let what = format!("embedding {dtype}");
        assert_close(&what, &read(&gpu, &x), &expected, 1e-7, 1e-6);
        check_sums(&what, &read(&gpu, &sums), count, &expected);
    }
}

#[test]
fn what_layer_norms_fold_into_wants_two_vectors() {
    let gpu = gpu();
    let (op, w) = (op(&gpu, &[DType::F32], Variant::PLAIN), matrices(&[(DType::F32, 4, 64)]));
    let w = w.load(&gpu, Join::Concat, u64::MAX);
    let make = |shape: &[usize]| Tensor::zeros(&gpu, "t", shape).unwrap();
    let (xn, sums, y, bias) = (make(&[1, 64]), make(&[6]), make(&[1, 4]), make(&[4]));
    let refused = |partials, bias| {
        let (r, input) = (&mut Recording::default(), Normed { xn: &xn, sums: &sums, partials });
        let store = Epilogue::Store;
        op.record_normed(r, "test", store, EPS, input, &y, &w, bias).unwrap_err().to_string()
    };
    assert_eq!(refused(2, Some(&bias)), "matvec_normed: t has shape [4], expected [2, 4]");
    assert_eq!(refused(2, None), "matvec_normed: no_bias has shape [1], expected [2, 4]");
    assert_eq!(refused(3, None), "matvec_normed: t has shape [6], expected [9] or more");
    let error =
        op.record_residual(&mut Recording::default(), "test", [&xn, &bias, &y, &y, &sums], &w);
    assert_eq!(error.unwrap_err().to_string(), "matvec_residual: t has shape [4], expected [2, 4]");
}
