//! matvec, matmul and get_rows of every format against their twins on dequantised weights.
use super::{Tried, run};
use crate::format::{BytesSource, DType, Gguf, dequantize};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{Epilogue, FRAME, GetRows, Join, Linear, MatMul, Product, Variant};
use crate::reference;
use crate::tests::gguf_file::{GgufFile, random_blocks, with_subnormal_halves};
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

/// Matrices in a file, and the same as plain numbers.
pub(super) struct Matrices {
    source: BytesSource,
    gguf: Gguf,
    pub(super) plain: Vec<Vec<f32>>,
}

pub(super) fn matrices(shapes: &[(DType, usize, usize)]) -> Matrices {
    matrices_of(shapes, |_, blocks| blocks)
}

/// The same with their blocks changed.
pub(super) fn matrices_of(
    shapes: &[(DType, usize, usize)],
    changed: impl Fn(DType, Vec<u8>) -> Vec<u8>,
) -> Matrices {
    let mut file = GgufFile::new();
    let mut plain = Vec::new();
    for (i, &(dtype, rows, cols)) in shapes.iter().enumerate() {
        let bytes = changed(dtype, random_blocks(dtype, i as u64 + 1, rows * cols));
        let mut values = vec![0.0; rows * cols];
        dequantize(dtype, &bytes, &mut values);
        plain.push(values);
        let dims = vec![cols as u64, rows as u64];
        file.tensors.push((format!("m{i}"), dims, dtype.ggml_id(), bytes));
    }
    let source = BytesSource::new("matrices.gguf", file.bytes());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    Matrices { source, gguf, plain }
}

impl Matrices {
    pub(super) fn load(&self, gpu: &Gpu, join: Join, limit: u64) -> Linear {
        let tensors: Vec<_> = self.gguf.tensors.iter().collect();
        let (mut done, size) = (0, self.gguf.tensors.iter().map(|t| t.size).sum::<u64>());
        let mut progress = |bytes| done += bytes;
        let source = &self.source;
        let linear =
            Linear::load_within(gpu, source, "w.test", &tensors, join, limit, &mut progress);
        let linear = block_on(linear).unwrap();
        assert_eq!(done, size, "progress tells of every byte");
        linear
    }
}

/// Every product of the given types, of one token and of many.
fn every_product(gpu: &Gpu, dtypes: &[DType], variant: Variant) -> MatMul {
    let products = products(dtypes);
    block_on(MatMul::new(gpu, &products, &products, variant)).unwrap()
}

/// The given types with every epilogue.
pub(super) fn products(dtypes: &[DType]) -> Vec<Product> {
    let epilogues = [Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu];
    dtypes.iter().flat_map(|&dtype| epilogues.map(|epilogue| (epilogue, dtype))).collect()
}

pub(super) struct Case<'a> {
    pub(super) what: String,
    pub(super) linear: &'a Linear,
    pub(super) plain: &'a [f32],
    pub(super) epilogue: Epilogue,
    pub(super) bias: bool,
    pub(super) room: usize,
    pub(super) tokens: usize,
}

fn check(gpu: &Gpu, op: &MatMul, case: &Case) {
    let x = noise(11, case.room * case.linear.cols);
    check_with(gpu, op, case, [&x, &x]);
}

/// The product of the first of `inputs` against its twin's of the second.
pub(super) fn check_with(gpu: &Gpu, op: &MatMul, case: &Case, inputs: [&[f32]; 2]) {
    check_by(gpu, case, inputs, |r, tensors, bias| {
        op.record(r, "test", case.epilogue, tensors, case.linear, bias).unwrap();
    });
}

/// The same of what is recorded with the frame, the inputs and the outputs, and a bias. Gives the outputs.
pub(super) fn check_by(
    gpu: &Gpu,
    case: &Case,
    [x, as_multiplied]: [&[f32]; 2],
    record: impl Fn(&mut Recording, [&Tensor; 3], Option<&Tensor>),
) -> Vec<f32> {
    let Case { linear, epilogue, room, tokens, .. } = *case;
    let (rows, cols, padded) = (linear.rows, linear.cols, linear.padded_cols());
    let width = epilogue.outputs(rows);
    let bias = if case.bias { noise(12, rows) } else { vec![] };
    // What is not a sum starts as NaN: what is not written shows.
    let start = match epilogue {
        Epilogue::Add => noise(13, room * width),
        _ => vec![f32::NAN; room * width],
    };
    let mut expected = start.clone();
    let (used, inputs) = (tokens * width, tokens * cols);
    let parts = [&as_multiplied[..inputs], case.plain, &bias];
    reference::matmul(epilogue, parts, cols, width, &mut expected[..used]);

    let mut wide = vec![0.0; room * padded];
    for (wide, x) in wide.chunks_exact_mut(padded).zip(x.chunks_exact(cols)) {
        wide[..cols].copy_from_slice(x);
    }
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &[5u32, tokens as u32, 1, 0]).unwrap();
    let x = Tensor::upload(gpu, "x", &[room, padded], &wide).unwrap();
    let y = Tensor::upload(gpu, "y", &[room, width], &start).unwrap();
    let bias = case.bias.then(|| Tensor::upload(gpu, "bias", &[rows], &bias).unwrap());
    let mut recording = Recording::default();
    record(&mut recording, [&frame, &x, &y], bias.as_ref());
    run(gpu, recording);
    let found: Vec<f32> = block_on(y.read(gpu)).unwrap();
    let what = format!("{} {rows}x{cols} {epilogue:?} {tokens} of {room}", case.what);
    assert_close(&what, &found[..used], &expected[..used], 2e-5, 1e-5);
    for (found, start) in found[used..].iter().zip(&start[used..]) {
        assert_eq!(found.to_bits(), start.to_bits(), "{what}: wrote beyond the pass");
    }
    found
}

/// (rows, units of K, room, tokens): one row; odd; real; more tokens than a tile; fewer than room; more rows than a
/// tile of each kind.
const SHAPES: [(usize, usize, usize, usize); 7] = [
    (1, 8, 1, 1),
    (5, 16, 1, 1),
    (66, 24, 1, 1),
    (3, 8, 9, 9),
    (6, 72, 16, 7),
    (34, 16, 8, 8),
    (70, 8, 65, 65),
];

#[test]
fn matvec_and_matmul_of_every_format() {
    matvec_and_matmul(Tried::ByTurns);
}

#[test]
#[ignore = "every variant with every type: ./build.sh test --all"]
fn matvec_and_matmul_of_every_format_in_every_variant() {
    matvec_and_matmul(Tried::Every);
}

fn matvec_and_matmul(tried: Tried) {
    let gpu = gpu();
    for (variant, dtype) in tried.of(&gpu) {
        let op = every_product(&gpu, &[dtype], variant);
        for (rows, units, room, tokens) in SHAPES {
            let m = matrices(&[(dtype, rows, 32 * units)]);
            let linear = &m.load(&gpu, Join::Concat, u64::MAX);
            assert_eq!(linear.parts.len(), 1);
            let case = |epilogue, bias| Case {
                what: format!("{dtype} {variant:?}"),
                linear,
                plain: &m.plain[0],
                epilogue,
                bias,
                room,
                tokens,
            };
            check(&gpu, &op, &case(Epilogue::Store, false));
            check(&gpu, &op, &case(Epilogue::Add, true));
            if rows % 2 == 0 {
                check(&gpu, &op, &case(Epilogue::SwiGlu, tokens % 2 == 1));
            }
        }
    }
}

/// WGSL lets a device take the smallest halves for zeros; where it does, kernels unpack them by integers.
#[test]
fn weights_whose_halves_are_subnormal() {
    let mut gpu = gpu();
    for by_bits in [gpu.tier.half_by_bits, true] {
        gpu.tier.half_by_bits = by_bits;
        let without = [DType::F32, DType::BF16, DType::MXFP4];
        for dtype in DType::ALL.into_iter().filter(|d| !without.contains(d)) {
            let (rows, cols) = (9, 512);
            let m = matrices_of(&[(dtype, rows, cols)], with_subnormal_halves);
            let (linear, plain) = (&m.load(&gpu, Join::Concat, u64::MAX), &m.plain[0][..]);
            let product = [(Epilogue::Store, dtype)];
            let op = block_on(MatMul::new(&gpu, &product, &[], Variant::PLAIN)).unwrap();
            // Weights are tiny; what comes of them is not.
            let largest = plain.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
            let x: Vec<f32> = noise(11, cols).iter().map(|x| x * 0.2 / largest).collect();
            let what = format!("{dtype} of subnormal halves, by bits {by_bits}");
            let (epilogue, bias, room, tokens) = (Epilogue::Store, false, 1, 1);
            let case = Case { what, linear, plain, epilogue, bias, room, tokens };
            check_with(&gpu, &op, &case, [&x, &x]);
        }
    }
}

#[test]
fn rows_that_do_not_fill_a_unit_are_padded() {
    let gpu = gpu();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let op = every_product(&gpu, &[dtype], Variant::PLAIN);
        for (cols, room) in [(1, 1), (33, 1), (172, 3)] {
            let m = matrices(&[(dtype, 7, cols)]);
            let linear = &m.load(&gpu, Join::Concat, u64::MAX);
            let (epilogue, bias, what) = (Epilogue::Store, true, format!("{dtype} padded"));
            let (plain, tokens) = (&m.plain[0][..], room);
            check(&gpu, &op, &Case { what, linear, plain, epilogue, bias, room, tokens });
        }
    }
}

#[test]
fn slices_and_joined_tensors_are_one_matrix() {
    let gpu = gpu();
    let types =
        [DType::Q4_0, DType::Q5_0, DType::Q8_0, DType::Q6K, DType::F32, DType::MXFP4, DType::IQ4NL];
    for (i, &dtype) in types.iter().enumerate() {
        let other = types[(i + 1) % types.len()];
        let op = every_product(&gpu, &[dtype, other], Variant::PLAIN);
        // an odd number of units before a join, where two or four share a word; another type in between
        for (units, middle) in
            [(8, dtype), (if dtype == DType::Q6K { 8 } else { 9 }, dtype), (8, other)]
        {
            let cols = 32 * units;
            let m = matrices(&[(dtype, 7, cols), (middle, 5, cols), (dtype, 22, cols)]);
            let plain = &m.plain.concat()[..];
            for limit in [u64::MAX, 20_000, 3_000] {
                let linear = &m.load(&gpu, Join::Concat, limit);
                let starts: Vec<_> = linear.parts.iter().map(|part| part.row0).collect();
                let what = format!("{dtype}, {middle}, limit {limit}, parts {starts:?}");
                assert_eq!(linear.rows, 34, "{what}");
                assert!(limit > 3_000 || starts.len() > 1, "{what}");
                for (epilogue, bias, room) in
                    [(Epilogue::Store, true, 1), (Epilogue::Add, false, 3)]
                {
                    let (what, tokens) = (what.clone(), room);
                    check(&gpu, &op, &Case { what, linear, plain, epilogue, bias, room, tokens });
                }
            }
        }
    }
}

#[test]
fn gate_and_up_are_interleaved() {
    let gpu = gpu();
    for dtype in [DType::Q4_1, DType::Q4K, DType::F16] {
        let op = every_product(&gpu, &[dtype], Variant::PLAIN);
        let m = matrices(&[(dtype, 19, 256), (dtype, 19, 256)]);
        let rows = m.plain[0].chunks_exact(256).zip(m.plain[1].chunks_exact(256));
        let plain: Vec<f32> = rows.flat_map(|(gate, up)| [gate, up].concat()).collect();
        let cases = [(u64::MAX, 1), (u64::MAX, 5), (3_000, 1), (3_000, 5)];
        for ((limit, room), bias) in cases.into_iter().flat_map(|c| [(c, false), (c, true)]) {
            let linear = &m.load(&gpu, Join::Interleave, limit);
            let epilogue = Epilogue::SwiGlu;
            let what = format!("{dtype} interleaved, limit {limit}");
            let (plain, tokens) = (&plain[..], room);
            check(&gpu, &op, &Case { what, linear, plain, epilogue, bias, room, tokens });
        }
    }
    let mixed = matrices(&[(DType::Q4_1, 4, 256), (DType::Q8_0, 4, 256)]);
    let tensors: Vec<_> = mixed.gguf.tensors.iter().collect();
    let mut unheard = |_| ();
    let load = Linear::load(&gpu, &mixed.source, "w", &tensors, Join::Interleave, &mut unheard);
    let error = block_on(load).err().unwrap().to_string();
    assert!(error.contains("m0 is Q4_1") && error.contains("m1 is Q8_0"), "{error}");
}

#[test]
fn get_rows_of_every_format() {
    let gpu = gpu();
    for dtype in DType::ALL {
        let op = block_on(GetRows::new(&gpu, &[dtype])).unwrap();
        let (rows, cols, room) = (37, 256, 9);
        let m = matrices(&[(dtype, rows, cols)]);
        let tokens: Vec<u32> = vec![0, 36, 5, 4, 17, 36, 1, 2, 3];
        for (limit, used) in [(u64::MAX, 9), (4_096, 8)] {
            let linear = m.load(&gpu, Join::Concat, limit);
            let mut expected = vec![f32::NAN; room * cols];
            reference::get_rows(&tokens[..used], &m.plain[0], cols, 0.75, &mut expected);
            let frame =
                Tensor::upload(&gpu, "frame", &[FRAME], &[3u32, used as u32, 1, 0]).unwrap();
            let ids = Tensor::upload(&gpu, "tokens", &[room], &tokens).unwrap();
            let nan = vec![f32::NAN; room * cols];
            let x = Tensor::upload(&gpu, "x", &[room, cols], &nan).unwrap();
            let mut recording = Recording::default();
            op.record(&mut recording, "test", 0.75, [&frame, &ids, &x], &linear).unwrap();
            run(&gpu, recording);
            let found: Vec<f32> = block_on(x.read(&gpu)).unwrap();
            let (found, beyond) = found.split_at(used * cols);
            let what = format!("get_rows {dtype} limit {limit}");
            assert_close(&what, found, &expected[..used * cols], 1e-7, 1e-6);
            assert!(beyond.iter().all(|v| v.is_nan()), "{what}: wrote beyond the pass");
        }
    }
}

/// Row e has the scale 2^(e - 128); a device may take the two that are subnormal for zeros.
#[test]
fn mxfp4_scales_of_every_exponent() {
    let gpu = gpu();
    let (rows, cols) = (253, 32);
    let m = matrices_of(&[(DType::MXFP4, rows, cols)], |dtype, mut blocks| {
        blocks.chunks_exact_mut(dtype.block_bytes()).zip(0..).for_each(|(b, e)| b[0] = e);
        blocks
    });
    let linear = m.load(&gpu, Join::Concat, u64::MAX);
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let frame = Tensor::upload(&gpu, "frame", &[FRAME], &[0u32, rows as u32, 1, 0]).unwrap();
    let ids = Tensor::upload(&gpu, "tokens", &[rows], &tokens).unwrap();
    let x = Tensor::zeros(&gpu, "x", &[rows, cols]).unwrap();
    let op = block_on(GetRows::new(&gpu, &[DType::MXFP4])).unwrap();
    let mut recording = Recording::default();
    op.record(&mut recording, "test", 1.0, [&frame, &ids, &x], &linear).unwrap();
    run(&gpu, recording);
    let found: Vec<f32> = block_on(x.read(&gpu)).unwrap();
    let (tiny, normal) = found.split_at(2 * cols);
    let (expected_tiny, expected) = m.plain[0].split_at(2 * cols);
    assert_eq!(normal, expected);
    for (found, expected) in tiny.iter().zip(expected_tiny) {
        assert!(found == expected || *found == 0.0, "{found}, {expected}");
    }
}

#[test]
fn matmul_refuses_a_wrong_shape() {
    let gpu = gpu();
    let op = every_product(&gpu, &[DType::Q8_0], Variant::PLAIN);
    let linear = matrices(&[(DType::Q8_0, 4, 64)]).load(&gpu, Join::Concat, u64::MAX);
    let make = |name: &str, shape: &[usize]| Tensor::zeros(&gpu, name, shape).unwrap();
    let [frame, x, y] = [make("frame", &[FRAME]), make("x", &[1, 32]), make("y", &[1, 4])];
    let recording = &mut Recording::default();
    let error = op.record(recording, "test", Epilogue::Store, [&frame, &x, &y], &linear, None);
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "matmul: x has shape [1, 32], expected [1, 64]");
}
