//! The fused products of the decode step against the twins of what they fuse.
use super::weight_ops::{Matrices, matrices, products};
use super::{Tried, run};
use crate::format::DType;
use crate::gpu::{AdapterChoice, Class, Gpu, Recording, Tensor};
use crate::ops::{
    Epilogue, Folds, Fused, Join, Linear, NormKind, NormParams, Normed, Sums, Variant,
    most_partials,
};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

/// large enough to matter
pub(super) const EPS: f32 = 0.1;

pub(super) fn upload(gpu: &Gpu, data: &[f32]) -> Tensor {
    Tensor::upload(gpu, "t", &[1, data.len()], data).unwrap()
}

pub(super) fn vector(gpu: &Gpu, data: &[f32]) -> Tensor {
    Tensor::upload(gpu, "t", &[data.len()], data).unwrap()
}

pub(super) fn nan(gpu: &Gpu, shape: &[usize]) -> Tensor {
    Tensor::upload(gpu, "t", shape, &vec![f32::NAN; shape.iter().product()]).unwrap()
}

pub(super) fn read(gpu: &Gpu, tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.read(gpu)).unwrap()
}

/// norm(x) w^T, as two ops would compute it; `squares` come in as many partial sums as a writer leaves.
fn check_normed(gpu: &Gpu, op: &Fused, m: &Matrices, what: &str, epilogue: Epilogue, limit: u64) {
    let linear = &m.load(gpu, Join::Concat, limit);
    let (x, gain) = (noise(31, linear.cols), noise(32, linear.cols));
    check_normed_with(gpu, op, (m, linear), what, epilogue, [&x, &gain, &gain]);
}

/// The same of x times gain, which are multiplied as if the gain were the last of `inputs`.
pub(super) fn check_normed_with(
    gpu: &Gpu,
    op: &Fused,
    (m, linear): (&Matrices, &Linear),
    what: &str,
    epilogue: Epilogue,
    [x, gain, as_multiplied]: [&[f32]; 3],
) {
    let (rows, cols) = (linear.rows, linear.cols);
    // by turns with and without
    let biased = epilogue == Epilogue::Store || rows % 4 == 2;
    let bias = if biased { noise(33, rows) } else { vec![] };
    let mut xn = vec![0.0; cols];
    let params = NormParams { cols: cols as u32, has_bias: 0, eps: EPS };
    reference::norm(NormKind::Rms, params, [x, as_multiplied, &[]], &mut xn);
    let width = epilogue.outputs(rows);
    let mut expected = vec![f32::NAN; width];
    reference::matmul(epilogue, [&xn, &m.plain.concat(), &bias], cols, width, &mut expected);

    let scaled: Vec<f32> = x.iter().zip(gain).map(|(x, g)| x * g).collect();
    let partials: Vec<f32> =
        x.chunks(4).map(|x| x.iter().map(|x| x * x).sum()).chain([f32::NAN; 3]).collect();
    let (xn, squares) = (upload(gpu, &scaled), vector(gpu, &partials));
    let y = nan(gpu, &[1, width]);
    let bias = (!bias.is_empty()).then(|| vector(gpu, &bias));
    let mut recording = Recording::default();
    let input = Normed { xn: &xn, sums: &squares, partials: partials.len() as u32 - 3 };
    op.record_normed(&mut recording, "test", epilogue, EPS, input, &y, linear, bias.as_ref())
        .unwrap();
    run(gpu, recording);
    assert_close(&format!("normed {what} {epilogue:?}"), &read(gpu, &y), &expected, 2e-5, 2e-5);
}

/// y += x w^T, then what the next norm needs.
fn check_residual(gpu: &Gpu, op: &Fused, m: &Matrices, what: &str, limit: u64) {
    let linear = &m.load(gpu, Join::Concat, limit);
    let x = noise(41, linear.cols);
    check_residual_with(gpu, op, (m, linear), what, [&x, &x]);
}

/// The same of the first of `inputs`, which are multiplied as if they were the second.
pub(super) fn check_residual_with(
    gpu: &Gpu,
    op: &Fused,
    (m, linear): (&Matrices, &Linear),
    what: &str,
    [x, as_multiplied]: [&[f32]; 2],
) {
    let (rows, cols) = (linear.rows, linear.cols);
    let (gain, mut expected) = (noise(42, rows), noise(43, rows));
    let (input, y) = (upload(gpu, x), upload(gpu, &expected));
    let weights = m.plain.concat();
    reference::matmul(Epilogue::Add, [as_multiplied, &weights, &[]], cols, rows, &mut expected);
    let yn = nan(gpu, &[1, rows]);
    let squares = nan(gpu, &[most_partials(rows, linear.parts.len())]);
    let mut recording = Recording::default();
    let tensors = [&input, &vector(gpu, &gain), &y, &yn, &squares];
    let partials = op.record_residual(&mut recording, "test", tensors, linear).unwrap();
    run(gpu, recording);
    assert_close(&format!("residual {what}"), &read(gpu, &y), &expected, 2e-5, 1e-5);
    let scaled: Vec<f32> = expected.iter().zip(&gain).map(|(y, g)| y * g).collect();
    assert_close(&format!("residual {what}: yn"), &read(gpu, &yn), &scaled, 2e-5, 1e-5);
    let total: f64 = expected.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
    let found: f64 =
        read(gpu, &squares)[..partials as usize].iter().map(|&square| f64::from(square)).sum();
    assert_close(&format!("residual {what}: squares"), &[found as f32], &[total as f32], 0.0, 1e-5);
}

#[test]
fn norms_folded_into_products_of_every_format() {
    norms_folded_into_products(Tried::ByTurns);
}

#[test]
#[ignore = "every variant with every type: ./build.sh test --all"]
fn norms_folded_into_products_of_every_format_in_every_variant() {
    norms_folded_into_products(Tried::Every);
}

fn norms_folded_into_products(tried: Tried) {
    let gpu = gpu();
    for (variant, dtype) in tried.of(&gpu) {
        let op =
            block_on(Fused::new(&gpu, &products(&[dtype]), &[dtype], variant, Folds::RMS)).unwrap();
        for (rows, cols) in [(1, 256), (66, 768), (37, 512)] {
            let m = matrices(&[(dtype, rows, cols)]);
            let what = format!("{dtype} {rows}x{cols} {variant:?}");
            check_normed(&gpu, &op, &m, &what, Epilogue::Store, u64::MAX);
            check_residual(&gpu, &op, &m, &what, u64::MAX);
            if rows % 2 == 0 {
                check_normed(&gpu, &op, &m, &what, Epilogue::SwiGlu, u64::MAX);
            }
        }
    }
}

#[test]
fn rows_of_few_units_share_a_workgroup() {
    let own = gpu();
    let gpus = [Class::GpuPlain, Class::Gpu32];
    let gpus = gpus.map(|class| block_on(Gpu::open_as(AdapterChoice::Best, class)).unwrap());
    let subgroup = Variant { sums: Sums::Subgroup, ..Variant::PLAIN };
    let subgroup = subgroup.runs_on(&own).then_some((&own, subgroup));
    let plain = gpus.iter().map(|gpu| (gpu, Variant::PLAIN));
    for (gpu, variant) in plain.chain(subgroup) {
        let dtypes = [DType::Q4_1, DType::F32];
        let op = block_on(Fused::new(gpu, &products(&dtypes), &[], variant, Folds::RMS)).unwrap();
        for (rows, cols) in [(1, 576), (1030, 576), (258, 128), (300, 960)] {
            for dtype in dtypes {
                let m = matrices(&[(dtype, rows, cols)]);
                let what = format!("{dtype} {rows}x{cols} {} {variant:?}", gpu.name);
                check_normed(gpu, &op, &m, &what, Epilogue::Store, u64::MAX);
                check_residual(gpu, &op, &m, &what, u64::MAX);
            }
        }
        // and in slices of a few rows, each with its partial sums
        let m = matrices(&[(DType::Q4_1, 1030, 576)]);
        check_residual(gpu, &op, &m, "in slices", 200_000);
    }
}

#[test]
fn matrices_in_slices_and_of_two_types_leave_every_partial_sum() {
    let gpu = gpu();
    let types = [DType::Q4_1, DType::F16];
    let op =
        block_on(Fused::new(&gpu, &products(&types), &[], Variant::PLAIN, Folds::RMS)).unwrap();
    let m = matrices(&[(DType::Q4_1, 7, 256), (DType::F16, 5, 256), (DType::Q4_1, 26, 256)]);
    for limit in [u64::MAX, 3_000] {
        let what = format!("slices of {limit}");
        check_normed(&gpu, &op, &m, &what, Epilogue::Store, limit);
        check_residual(&gpu, &op, &m, &what, limit);
    }
}

#[test]
fn the_embedding_of_one_token_of_every_format() {
    let gpu = gpu();
    for dtype in DType::ALL {
        let op = block_on(Fused::new(&gpu, &[], &[dtype], Variant::PLAIN, Folds::RMS)).unwrap();
        let (rows, cols) = (37, 256);
        let m = matrices(&[(dtype, rows, cols)]);
        for (limit, id) in [(u64::MAX, 36u32), (u64::MAX, 0), (4_096, 17)] {
            let linear = m.load(&gpu, Join::Concat, limit);
            let gain = noise(51, cols);
            let mut expected = vec![0.0; cols];
            reference::get_rows(&[id], &m.plain[0], cols, 0.75, &mut expected);
            let token = Tensor::upload(&gpu, "tokens", &[2], &[id, 99]).unwrap();
            let (x, xn) = (nan(&gpu, &[1, cols]), nan(&gpu, &[1, cols]));
            let squares = nan(&gpu, &[most_partials(cols, 1)]);
            let mut recording = Recording::default();
            let tensors = [&token, &vector(&gpu, &gain), &x, &xn, &squares];
            let partials = op
                .record_get_rows(&mut recording, "test", 0.75, tensors, &linear)
                .unwrap() as usize;
            run(&gpu, recording);
            let what = format!("get_rows_normed {dtype} {id} limit {limit}");
            assert_close(&what, &read(&gpu, &x), &expected, 1e-7, 1e-6);
            let scaled: Vec<f32> = expected.iter().zip(&gain).map(|(x, g)| x * g).collect();
            assert_close(&what, &read(&gpu, &xn), &scaled, 1e-7, 1e-6);
            let total: f32 = expected.iter().map(|x| x * x).sum();
            let found = read(&gpu, &squares)[..partials].iter().sum();
            assert_close(&what, &[found], &[total], 0.0, 1e-5);
        }
    }
}

#[test]
fn fused_products_refuse_wrong_shapes() {
    let gpu = gpu();
    let (products, dtypes) = (products(&[DType::F32]), [DType::F32]);
    let op = Fused::new(&gpu, &products, &dtypes, Variant::PLAIN, Folds::RMS);
    let op = block_on(op).unwrap();
    let linear = matrices(&[(DType::F32, 4, 64)]).load(&gpu, Join::Concat, u64::MAX);
    let make = |shape: &[usize]| Tensor::zeros(&gpu, "t", shape).unwrap();
    let recording = &mut Recording::default();
    let (xn, squares, y) = (make(&[1, 64]), make(&[15]), make(&[1, 4]));
    let input = Normed { xn: &xn, sums: &squares, partials: 16 };
    let error = op.record_normed(recording, "test", Epilogue::Store, EPS, input, &y, &linear, None);
    assert_eq!(
        error.unwrap_err().to_string(),
        "matvec_normed: t has shape [15], expected [16] or more"
    );
    let error =
        op.record_residual(recording, "test", [&xn, &make(&[5]), &y, &y, &squares], &linear);
    assert_eq!(error.unwrap_err().to_string(), "matvec_residual: t has shape [5], expected [4]");
}
