//! What becomes of a product, against its twin. Additions and SwiGLU have their tests beside the products.
use super::weight_ops::matrices;
use super::{run, variants};
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{Epilogue, FRAME, Folds, Fused, Join, Linear, MatMul, Normed};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

const EPILOGUES: [Epilogue; 4] =
    [Epilogue::Gelu, Epilogue::GeluTanh, Epilogue::GeGluTanh, Epilogue::SwiGluClamped];

#[test]
fn epilogues_are_numbered_as_their_shader_has_them() {
    let shader = include_str!("../../../shaders/lib/epilogue.wgsl");
    let shader = shader.to_lowercase().replace('_', "");
    for (i, epilogue) in Epilogue::ALL.into_iter().enumerate() {
        assert_eq!(epilogue as usize, i);
        let name = format!("{epilogue:?}").to_lowercase();
        assert!(shader.contains(&format!("const {name}: u32 = {i}u;")), "{name}");
    }
}

/// Biases under which sums lie where the functions bend and beyond, and where a careless one has no number.
fn biases(rows: usize) -> Vec<f32> {
    let far = [0.0, 20.0, -20.0, 300.0, -300.0, 1e6, -1e6, 1e15, -1e15];
    let near = (0..rows - far.len()).map(|i| 16.0 * i as f32 / (rows - far.len()) as f32 - 8.0);
    far.into_iter().chain(near).collect()
}

/// Products with more rows than a workgroup has and as many tokens, small beside what they are added to.
struct Inputs {
    linear: Linear,
    plain: Vec<f32>,
    x: Vec<f32>,
    bias: Vec<f32>,
}

const TOKENS: usize = 11;
const COLS: usize = 64;

impl Inputs {
    fn new(gpu: &Gpu) -> Self {
        let rows = 302;
        let m = matrices(&[(DType::F32, rows, COLS)]);
        let linear = m.load(gpu, Join::Concat, u64::MAX);
        let x = noise(1, TOKENS * COLS).iter().map(|x| 0.1 * x).collect();
        Self { linear, plain: m.plain.concat(), x, bias: biases(rows) }
    }

    fn expected(&self, epilogue: Epilogue, x: &[f32]) -> Vec<f32> {
        let width = epilogue.outputs(self.linear.rows);
        let mut expected = vec![0.0; x.len() / COLS * width];
        reference::matmul(epilogue, [x, &self.plain, &self.bias], COLS, width, &mut expected);
        expected
    }
}

/// Reads y and holds it to the twin's.
fn check(gpu: &Gpu, what: &str, y: &Tensor, expected: &[f32]) {
    let found: Vec<f32> = block_on(y.read(gpu)).unwrap();
    assert_close(what, &found, expected, 3e-6, 3e-6);
}

/// Every kernel has the same text of them, and calls it as it does for SwiGLU: few are tried here.
#[test]
fn gelu_of_products() {
    let gpu = gpu();
    let inputs = Inputs::new(&gpu);
    let bias = Tensor::upload(&gpu, "bias", &[inputs.bias.len()], &inputs.bias).unwrap();
    let (linear, bias) = (&inputs.linear, Some(&bias));
    let products = EPILOGUES.map(|epilogue| (epilogue, DType::F32));
    let variants = variants(&gpu);
    let (plain, best) = (variants[0], *variants.last().unwrap());
    let fused = block_on(Fused::new(&gpu, &products[..1], &[], plain, Folds::RMS)).unwrap();
    for (variant, one, many) in
        [(plain, &products[..], &products[2..]), (best, &products[1..2], &products[..1])]
    {
        let op = block_on(MatMul::new(&gpu, one, many, variant)).unwrap();
        for (products, tokens) in [(one, 1), (many, TOKENS)] {
            for &(epilogue, _) in products {
                let x = &inputs.x[..tokens * COLS];
                let expected = inputs.expected(epilogue, x);
                let nan = vec![f32::NAN; expected.len()];
                let frame =
                    Tensor::upload(&gpu, "frame", &[FRAME], &[5u32, tokens as u32, 1, 0]).unwrap();
                let x = Tensor::upload(&gpu, "x", &[tokens, COLS], x).unwrap();
                let shape = [tokens, expected.len() / tokens];
                let y = Tensor::upload(&gpu, "y", &shape, &nan).unwrap();
                let mut r = Recording::default();
                op.record(&mut r, "test", epilogue, [&frame, &x, &y], linear, bias).unwrap();
                run(&gpu, r);
                let what = format!("{epilogue:?} {variant:?} {tokens}");
                check(&gpu, &what, &y, &expected);
            }
        }
    }
    let expected = inputs.expected(EPILOGUES[0], &inputs.x[..COLS]);
    let x = Tensor::upload(&gpu, "x", &[1, COLS], &inputs.x[..COLS]).unwrap();
    let y = Tensor::zeros(&gpu, "y", &[1, expected.len()]).unwrap();
    // One over the root of the mean is one.
    let squares = Tensor::upload(&gpu, "squares", &[1], &[COLS as f32]).unwrap();
    let normed = Normed { xn: &x, sums: &squares, partials: 1 };
    let mut r = Recording::default();
    fused.record_normed(&mut r, "test", EPILOGUES[0], 0.0, normed, &y, linear, bias).unwrap();
    run(&gpu, r);
    check(&gpu, "normed", &y, &expected);
}

#[test]
fn a_normed_product_is_not_added() {
    let gpu = gpu();
    let inputs = Inputs::new(&gpu);
    let fused = block_on(Fused::new(&gpu, &[], &[], variants(&gpu)[0], Folds::RMS)).unwrap();
    let [x, y] = [COLS, inputs.linear.rows].map(|n| Tensor::zeros(&gpu, "t", &[1, n]).unwrap());
    let squares = Tensor::zeros(&gpu, "squares", &[1]).unwrap();
    let normed = Normed { xn: &x, sums: &squares, partials: 1 };
    let refused = |epilogue| {
        let (r, linear) = (&mut Recording::default(), &inputs.linear);
        fused.record_normed(r, "test", epilogue, 0.0, normed, &y, linear, None).unwrap_err()
    };
    let error = refused(Epilogue::Add).to_string();
    assert!(error.ends_with("expected an epilogue that does not add"), "{error}");
    let error = refused(Epilogue::GeGluTanh).to_string();
    assert!(error.starts_with("matvec_normed: t has shape [1, 302]"), "{error}");
    assert!(refused(Epilogue::Gelu).to_string().contains("F32"));
}
