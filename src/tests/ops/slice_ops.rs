//! Products in slices of a matrix, as software drivers get them: bit for bit what they give at once.
use super::fused_ops::{EPS, nan, upload, vector};
use super::weight_ops::{matrices, products};
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{
    Epilogue, ExpertTiles, ExpertWeights, Experts, ExpertsMany, Folds, Fused, GroupExperts, Join,
    Linear, MatMul, MatMulFew, Most, Normed, Sums, Variant, most_partials,
};
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

const ROWS: usize = 1700;
const TOKENS: usize = 3;
const EPILOGUE: Epilogue = Epilogue::SwiGlu;

/// What a dispatch for each part gives, and slices as short as they may be. `record` gives what is written.
fn check(
    gpu: &Gpu,
    what: &str,
    parts: usize,
    mut record: impl FnMut(&mut Recording, Most) -> Vec<Tensor>,
) {
    let [(one, whole), (many, sliced)] = [u64::MAX, 1].map(|most| {
        let mut r = Recording::default();
        let written = record(&mut r, Most(most));
        let count = r.works().count();
        super::run(gpu, r);
        let read = |tensor: &Tensor| block_on(tensor.read::<f32>(gpu)).unwrap();
        (count, written.iter().flat_map(read).collect::<Vec<_>>())
    });
    assert!(one == parts && many > parts, "{what}: {one} and {many} dispatches");
    // Elsewhere lanes are shared out by the rows there are.
    let close = if gpu.tier.cpu { 0.0 } else { 1e-5 };
    assert_close(what, &sliced, &whole, close, close);
}

/// Of a stream's tokens, and of several streams'.
fn check_plain(gpu: &Gpu, what: &str, (w, variant): (&Linear, Variant), dtype: DType) {
    let frame = Tensor::upload(gpu, "frame", &[4], &[0u32, TOKENS as u32, 0, 0]).unwrap();
    let (bias, product) = (vector(gpu, &noise(4, ROWS)), [(EPILOGUE, dtype)]);
    let mut op = block_on(MatMul::new(gpu, &product, &product, variant)).unwrap();
    let inputs = |tokens| {
        let x = noise(3, tokens * w.cols);
        Tensor::upload(gpu, "x", &[tokens, w.cols], &x).unwrap()
    };
    for tokens in [1, TOKENS] {
        let x = inputs(tokens);
        check(gpu, &format!("{what}, {tokens}"), 1, |r, most| {
            let y = nan(gpu, &[tokens, ROWS / 2]);
            op.most = most;
            op.record(r, "y", EPILOGUE, [&frame, &x, &y], w, Some(&bias)).unwrap();
            vec![y]
        });
    }
    let Some(mut op) = block_on(MatMulFew::new(gpu, &product, variant)).unwrap() else { return };
    let x = inputs(TOKENS);
    check(gpu, &format!("{what}, of streams"), 1, |r, most| {
        let y = nan(gpu, &[TOKENS, ROWS / 2]);
        op.most = most;
        op.record(r, "y", EPILOGUE, [&frame, &x, &y], w, Some(&bias)).unwrap();
        vec![y]
    });
}

/// Of one token, with norms folded in.
fn check_folded(gpu: &Gpu, what: &str, (w, variant): (&Linear, Variant), dtype: DType) {
    let dtypes = [dtype];
    let mut op =
        block_on(Fused::new(gpu, &products(&dtypes), &dtypes, variant, Folds::RMS)).unwrap();
    let (x, sums) = (upload(gpu, &noise(5, w.cols)), vector(gpu, &[2.0, 3.0]));
    check(gpu, &format!("{what}, normed"), 1, |r, most| {
        let (y, input) = (nan(gpu, &[1, ROWS / 2]), Normed { xn: &x, sums: &sums, partials: 2 });
        op.most = most;
        op.record_normed(r, "y", EPILOGUE, EPS, input, &y, w, None).unwrap();
        vec![y]
    });
    let gain = vector(gpu, &noise(6, ROWS));
    check(gpu, &format!("{what}, residual"), 1, |r, most| {
        let (y, yn) = (upload(gpu, &noise(7, ROWS)), nan(gpu, &[1, ROWS]));
        let sums = Tensor::zeros(gpu, "sums", &[most_partials(ROWS, 1)]).unwrap();
        op.most = most;
        op.record_residual(r, "y", [&x, &gain, &y, &yn, &sums], w).unwrap();
        vec![y, yn, sums]
    });
}

#[test]
fn slices_of_a_matrix_give_the_bits_of_the_whole() {
    let gpu = gpu();
    let variant = Variant::of(&gpu);
    // Rows whose words begin at many places, and at few.
    for (dtype, units) in [(DType::Q4_1, 3), (DType::Q5_0, 1), (DType::Q6K, 8), (DType::F16, 3)] {
        let m = matrices(&[(dtype, ROWS, 32 * units)]);
        let w = &m.load(&gpu, Join::Concat, u64::MAX);
        let what = format!("{dtype}, {units} units");
        check_plain(&gpu, &what, (w, variant), dtype);
        check_folded(&gpu, &what, (w, variant), dtype);
    }
}

/// Tokens that choose two of three experts, whose matrices are in parts that end inside of one.
#[test]
fn slices_of_experts_give_the_bits_of_the_whole() {
    const EACH: usize = 86;
    const COLS: usize = 96;
    let gpu = gpu();
    let dtype = DType::Q4_1;
    let m = matrices(&[(dtype, 3 * EACH, COLS)]);
    let w = &m.load(&gpu, Join::Concat, 8_000);
    assert!(w.parts.len() > 1);
    let (bias, frame) = (vector(&gpu, &noise(4, 3 * EACH)), [0u32, TOKENS as u32, 0, 0]);
    let weights = ExpertWeights { w, bias: Some(&bias), experts: 3 };
    let frame = Tensor::upload(&gpu, "frame", &[4], &frame).unwrap();
    let words = [0, 2, 1, 0, 2, 1].map(|expert| [expert, 0.4f32.to_bits()]);
    let chosen = Tensor::upload(&gpu, "chosen", &[TOKENS, 2, 2], words.as_flattened()).unwrap();
    let x = |shape: &[usize]| {
        Tensor::upload(&gpu, "x", shape, &noise(3, shape.iter().product())).unwrap()
    };
    let gated = (EPILOGUE, dtype);
    let products = [gated, (Epilogue::Add, dtype)];
    let mut op = block_on(Experts::new(&gpu, Sums::Shared, &products, false)).unwrap();
    for (epilogue, x, shape) in [
        (EPILOGUE, x(&[TOKENS, COLS]), vec![TOKENS, 2, EACH / 2]),
        (Epilogue::Add, x(&[TOKENS, 2, COLS]), vec![TOKENS, EACH]),
    ] {
        check(&gpu, &format!("{epilogue:?}"), w.parts.len(), |r, most| {
            let y = Tensor::zeros(&gpu, "y", &shape).unwrap();
            op.most = most;
            op.record(r, "y", epilogue, [&frame, &x, &chosen, &y], weights).unwrap();
            vec![y]
        });
    }
    let x = x(&[TOKENS, COLS]);
    for tiles in [ExpertTiles::Rows, ExpertTiles::Tiles] {
        let groups = Tensor::zeros(&gpu, "groups", &tiles.groups([TOKENS, 2, 3])).unwrap();
        let group = block_on(GroupExperts::new(&gpu)).unwrap();
        let mut r = Recording::default();
        group.record(&mut r, "groups", 3, [&frame, &chosen, &groups]).unwrap();
        super::run(&gpu, r);
        let mut op = block_on(ExpertsMany::new(&gpu, tiles, &[gated])).unwrap();
        check(&gpu, &format!("{tiles:?}"), w.parts.len(), |r, most| {
            let y = nan(&gpu, &[TOKENS, 2, EACH / 2]);
            op.most = most;
            op.record(r, "y", EPILOGUE, [&x, &groups, &y], weights).unwrap();
            vec![y]
        });
    }
}
