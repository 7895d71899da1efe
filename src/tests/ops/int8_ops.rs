//! Products of activations rounded to bytes: against the twin that rounds, and how far off the exact product.
use super::fused_ops::{check_normed_with, check_residual_with};
use super::weight_ops::{Case, check_with, matrices};
use super::{Tried, run, variants};
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{ActivationType, Epilogue, FRAME, Folds, Fused, Join, MatMul, Variant};
use crate::reference;
use crate::tests::support::{gpu, noise};
use pollster::block_on;

const INT8: ActivationType = ActivationType::Int8;

/// Variants of this device with types of integers.
fn integers(gpu: &Gpu, tried: Tried) -> impl Iterator<Item = (Variant, DType)> {
    let tried = tried.of(gpu).into_iter().filter(|&(_, dtype)| INT8.suits(dtype));
    tried.map(|(variant, dtype)| (Variant { activations: INT8, ..variant }, dtype))
}

/// The kernel of y = x w^T alone: epilogues are those of other activations, and compiling takes long.
fn stored(gpu: &Gpu, variant: Variant, dtype: DType) -> MatMul {
    block_on(MatMul::new(gpu, &[(Epilogue::Store, dtype)], &[], variant)).unwrap()
}

/// Activations of which none lies between two bytes, so that rounding is the same whatever the last bit of a division is.
/// Blocks have scales of their own; the third is zero.
fn settled(seed: u64, len: usize) -> Vec<f32> {
    let (whole, rest) = (noise(seed, len), noise(seed + 1, len));
    let value = |(i, (whole, rest)): (usize, (f32, f32))| {
        let (block, place) = (i / 32, i % 32);
        let scale = if block == 2 { 0.0 } else { 0.002 * (1 + block % 5) as f32 };
        let most = place == block % 32;
        let byte = if most { 127.0 } else { (126.0 * whole).round() + 0.35 * rest };
        scale * if block % 3 == 1 { -byte } else { byte }
    };
    whole.into_iter().zip(rest).enumerate().map(value).collect()
}

#[test]
fn products_of_rounded_activations_are_their_twins() {
    products_of_rounded_activations(Tried::ByTurns);
}

#[test]
#[ignore = "every variant with every type: ./build.sh test --all"]
fn products_of_rounded_activations_in_every_variant_are_their_twins() {
    products_of_rounded_activations(Tried::Every);
}

fn products_of_rounded_activations(tried: Tried) {
    let gpu = gpu();
    for (variant, dtype) in integers(&gpu, tried) {
        let op = stored(&gpu, variant, dtype);
        for (rows, cols) in [(1, 256), (5, 512), (66, 768)] {
            let m = matrices(&[(dtype, rows, cols)]);
            let linear = &m.load(&gpu, Join::Concat, u64::MAX);
            let x = settled(21, cols);
            let inputs = [&x[..], &reference::rounded(&x)];
            assert_ne!(inputs[0], inputs[1], "rounding changes something");
            let (what, plain) = (format!("{dtype} {variant:?}"), &m.plain[0][..]);
            let (epilogue, bias, room, tokens) = (Epilogue::Store, true, 1, 1);
            let case = Case { what, linear, plain, epilogue, bias, room, tokens };
            check_with(&gpu, &op, &case, inputs);
        }
    }
}

#[test]
fn fused_products_of_rounded_activations_are_their_twins() {
    fused_products_of_rounded_activations(Tried::ByTurns);
}

#[test]
#[ignore = "every variant with every type: ./build.sh test --all"]
fn fused_products_of_rounded_activations_in_every_variant_are_their_twins() {
    fused_products_of_rounded_activations(Tried::Every);
}

fn fused_products_of_rounded_activations(tried: Tried) {
    let gpu = gpu();
    for (variant, dtype) in integers(&gpu, tried) {
        let products = [Epilogue::Store, Epilogue::Add].map(|epilogue| (epilogue, dtype));
        let op = block_on(Fused::new(&gpu, &products, &[], variant, Folds::RMS)).unwrap();
        for (rows, cols) in [(1, 256), (66, 768), (37, 512)] {
            let m = matrices(&[(dtype, rows, cols)]);
            let linear = &m.load(&gpu, Join::Concat, u64::MAX);
            let what = format!("{dtype} {rows}x{cols} {variant:?}");
            let scaled = settled(31, cols);
            let gain: Vec<f32> = noise(33, cols).iter().map(|v| 1.0 + 0.5 * v).collect();
            let x: Vec<f32> = scaled.iter().zip(&gain).map(|(x, gain)| x / gain).collect();
            // The gain that would give what the bytes say.
            let rounded = reference::rounded(&scaled);
            let gains = x.iter().zip(&rounded).zip(&gain);
            let as_rounded: Vec<f32> =
                gains.map(|((x, r), gain)| if *x == 0.0 { *gain } else { r / x }).collect();
            let inputs = [&x[..], &gain, &as_rounded];
            let on = (&m, linear);
            check_normed_with(&gpu, &op, on, &what, Epilogue::Store, inputs);
            check_residual_with(&gpu, &op, on, &what, [&scaled, &rounded]);
        }
    }
}

/// y = x w^T of one token.
fn product(gpu: &Gpu, variant: Variant, dtype: DType, x: &[f32], rows: usize) -> [Vec<f32>; 2] {
    let m = matrices(&[(dtype, rows, x.len())]);
    let linear = m.load(gpu, Join::Concat, u64::MAX);
    let op = stored(gpu, variant, dtype);
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &[0u32, 1, 1, 0]).unwrap();
    let input = Tensor::upload(gpu, "x", &[1, x.len()], x).unwrap();
    let y = Tensor::zeros(gpu, "y", &[1, rows]).unwrap();
    let mut recording = Recording::default();
    let tensors = [&frame, &input, &y];
    op.record(&mut recording, "test", Epilogue::Store, tensors, &linear, None).unwrap();
    run(gpu, recording);
    [block_on(y.read(gpu)).unwrap(), m.plain[0].clone()]
}

/// Each activation is off by half a step at most, a step being a 127th of its block's largest.
#[test]
fn rounding_costs_no_more_than_half_a_step_of_each_weight() {
    let gpu = gpu();
    let (rows, cols) = (23, 512);
    let variants = variants(&gpu);
    // Each type in one variant, by turns: all are held to the same twin.
    for (i, dtype) in DType::ALL.into_iter().filter(|&dtype| INT8.suits(dtype)).enumerate() {
        let variant = Variant { activations: INT8, ..variants[i % variants.len()] };
        let mut x = noise(60 + i as u64, cols);
        // Blocks of all sizes, and outliers.
        x.iter_mut().enumerate().for_each(|(i, x)| *x *= 10f32.powi(i as i32 / 32 % 5 - 3));
        x[i % cols] = 9.0;
        let [found, w] = product(&gpu, variant, dtype, &x, rows);
        let mut worst = 0.0f64;
        for (found, w) in found.iter().zip(w.chunks_exact(cols)) {
            let (mut exact, mut size, mut bound) = (0.0, 0.0, 0.0);
            for (x, w) in x.chunks_exact(32).zip(w.chunks_exact(32)) {
                let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let half_step = f64::from(most) / 254.0;
                for (&x, &w) in x.iter().zip(w) {
                    exact += f64::from(x) * f64::from(w);
                    size += (f64::from(x) * f64::from(w)).abs();
                    bound += half_step * f64::from(w).abs();
                }
            }
            let off = (f64::from(*found) - exact).abs();
            assert!(off <= 1.001 * bound + 1e-5 * size, "{dtype} {variant:?}: {off}, {bound}");
            worst = worst.max(off / bound);
        }
        // It is bytes that were multiplied: exact products are off by next to nothing.
        assert!(worst > 1e-3, "{dtype} {variant:?}: {worst}");
    }
}
