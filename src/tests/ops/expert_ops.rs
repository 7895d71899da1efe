//! Routing, and products with the experts of each token, against their twins.
use super::weight_ops::{Matrices, matrices_of};
use super::{run, sums};
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{
    Epilogue, ExpertWeights, Experts, FRAME, Join, Linear, Normed, Route, RouteParams, Sums,
};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

fn frame(gpu: &Gpu, tokens: usize) -> Tensor {
    Tensor::upload(gpu, "frame", &[FRAME], &[5u32, tokens as u32, 1, 0]).unwrap()
}

/// Experts and their shares, as the device has them.
fn routed(gpu: &Gpu, op: &Route, params: RouteParams, logits: &[f32], tokens: usize) -> Vec<u32> {
    let [experts, used] = [params.experts, params.used].map(|n| n as usize);
    let room = logits.len() / experts;
    let logits = Tensor::upload(gpu, "logits", &[room, experts], logits).unwrap();
    let unwritten = vec![u32::MAX; room * used * 2];
    let chosen = Tensor::upload(gpu, "chosen", &[room, used, 2], &unwritten).unwrap();
    let mut r = Recording::default();
    op.record(&mut r, "test", params, [&frame(gpu, tokens), &logits, &chosen]).unwrap();
    run(gpu, r);
    let mut found: Vec<u32> = block_on(chosen.read(gpu)).unwrap();
    let beyond = found.split_off(tokens * used * 2);
    assert!(beyond.iter().all(|&word| word == u32::MAX), "wrote beyond the pass");
    found
}

#[test]
fn route() {
    let gpu = gpu();
    let op = block_on(Route::new(&gpu)).unwrap();
    for (experts, used, levels) in
        [(1, 1, 0.0), (5, 5, 0.0), (8, 2, 2.0), (100, 8, 10.0), (128, 8, 0.0), (512, 16, 40.0)]
    {
        let params = RouteParams { experts, used, scale: 2.5 };
        let (tokens, room) = (3, 4);
        let logits = noise(3, room * experts as usize);
        // In steps, so that many are equal; minus zero is zero.
        let logits = logits.iter().map(|v| match levels {
            0.0 => 8.0 * v,
            _ => (v * levels).trunc() / 4.0,
        });
        let logits: Vec<f32> = logits.collect();
        let found = routed(&gpu, &op, params, &logits, tokens);
        let expected = reference::route(params, &logits[..tokens * experts as usize]);
        let ids: Vec<u32> = found.iter().step_by(2).copied().collect();
        let expected_ids: Vec<u32> = expected.iter().map(|&(expert, _)| expert).collect();
        assert_eq!(ids, expected_ids, "{used} of {experts}");
        let shares: Vec<f32> = found[1..].iter().step_by(2).map(|&w| f32::from_bits(w)).collect();
        let expected: Vec<f32> = expected.iter().map(|&(_, share)| share).collect();
        assert_close(&format!("{used} of {experts}"), &shares, &expected, 1e-6, 1e-5);
    }
}

/// A model that is damaged reads no weights that are not there, and what comes of it is to be seen.
#[test]
fn logits_that_are_no_numbers_choose_different_experts() {
    let gpu = gpu();
    let op = block_on(Route::new(&gpu)).unwrap();
    let params = RouteParams { experts: 20, used: 6, scale: 1.0 };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for strange in [[nan; 3], [-nan; 3], [inf; 3], [-inf; 3], [nan, inf, -inf]] {
        let logits: Vec<f32> = (0..20).map(|i| strange[i % 3]).collect();
        let found = routed(&gpu, &op, params, &logits, 1);
        let mut ids: Vec<u32> = found.iter().step_by(2).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() == 6 && ids[5] < 20, "{strange:?}: {ids:?}");
        let shares = found[1..].iter().step_by(2).map(|&word| f32::from_bits(word));
        assert!(shares.into_iter().any(f32::is_nan), "{strange:?}");
    }
}

const EXPERTS: usize = 5;
/// No token goes there.
const UNUSED: usize = 3;
const USED: usize = 2;
const COLS: usize = 96;

/// Matrices of so many rows for each expert, of which the unused one's are no numbers.
fn matrices(dtype: DType, each: usize) -> Matrices {
    matrices_of(&[(dtype, EXPERTS * each, COLS)], |_, mut blocks| {
        let expert = blocks.len() / EXPERTS;
        blocks[UNUSED * expert..][..expert].fill(0xff);
        blocks
    })
}

struct Case<'a> {
    what: String,
    epilogue: Epilogue,
    linear: &'a Linear,
    plain: &'a [f32],
    biased: bool,
    room: usize,
    tokens: usize,
}

fn check(gpu: &Gpu, op: &Experts, case: &Case<'_>) {
    let Case { epilogue, linear, plain, room, tokens, .. } = *case;
    let (each, added) = (linear.rows / EXPERTS, epilogue == Epilogue::Add);
    let shares = noise(5, room * USED);
    let ids = [0u32, 4, 2, 1, 4, 2, 1, 0, 2, 4];
    let chosen: Vec<_> = ids.into_iter().cycle().zip(shares).collect();
    let words: Vec<u32> = chosen.iter().flat_map(|&(id, share)| [id, share.to_bits()]).collect();
    let x_shape = if added { vec![room, USED, COLS] } else { vec![room, COLS] };
    let y_shape = if added { vec![room, each] } else { vec![room, USED, each / 2] };
    let [inputs, outputs] = [&x_shape, &y_shape].map(|s| s[1..].iter().product::<usize>());
    let (x, bias) = (noise(6, room * inputs), noise(7, linear.rows));
    let bias = if case.biased { &bias[..] } else { &[] };
    let start = if added { noise(8, room * outputs) } else { vec![f32::NAN; room * outputs] };
    let mut expected = start.clone();
    let width = y_shape.last().copied().unwrap();
    reference::experts(
        epilogue,
        [&x, plain, bias],
        [COLS, each, USED, width],
        &chosen[..tokens * USED],
        &mut expected,
    );
    let upload =
        |name: &str, shape: &[usize], data: &[f32]| Tensor::upload(gpu, name, shape, data).unwrap();
    let (x, y) = (upload("x", &x_shape, &x), upload("y", &y_shape, &start));
    let bias_of_it = bias;
    let bias = case.biased.then(|| upload("bias", &[linear.rows], bias));
    let words = Tensor::upload(gpu, "chosen", &[room, USED, 2], &words).unwrap();
    let weights = ExpertWeights { w: linear, bias: bias.as_ref(), experts: EXPERTS };
    let mut r = Recording::default();
    let tensors = [&frame(gpu, tokens), &x, &words, &y];
    op.record(&mut r, "test", epilogue, tensors, weights).unwrap();
    if room == 1 && !added {
        check_normed(gpu, op, case, [tensors[2], &x], weights, (&chosen, bias_of_it));
    }
    run(gpu, r);
    let found: Vec<f32> = block_on(y.read(gpu)).unwrap();
    let used = tokens * outputs;
    assert_close(&case.what, &found[..used], &expected[..used], 2e-5, 1e-5);
    for (found, start) in found[used..].iter().zip(&start[used..]) {
        assert_eq!(found.to_bits(), start.to_bits(), "{}: wrote beyond the pass", case.what);
    }
}

/// The same of one token with a norm folded in: more partial sums than a workgroup has lanes, and none.
fn check_normed(
    gpu: &Gpu,
    op: &Experts,
    case: &Case<'_>,
    [words, x]: [&Tensor; 2],
    weights: ExpertWeights<'_>,
    (chosen, bias): (&[(u32, f32)], &[f32]),
) {
    /// large enough to matter
    const EPS: f32 = 0.1;
    let (Case { epilogue, linear, plain, .. }, many) = (case, 131);
    let (each, width) = (linear.rows / EXPERTS, linear.rows / EXPERTS / 2);
    let squares: Vec<f32> = noise(9, many).iter().map(|v| 4.0 * v * v).collect();
    let sums = Tensor::upload(gpu, "sums", &[many], &squares).unwrap();
    for partials in [many, 0] {
        let mean = squares[..partials].iter().sum::<f32>() / COLS as f32;
        let scale = if partials > 0 { 1.0 / (mean + EPS).sqrt() } else { 1.0 };
        let normed: Vec<f32> = noise(6, COLS).iter().map(|v| v * scale).collect();
        let mut expected = vec![f32::NAN; USED * width];
        let sizes = [COLS, each, USED, width];
        reference::experts(*epilogue, [&normed, plain, bias], sizes, chosen, &mut expected);
        let y = Tensor::upload(gpu, "y", &[1, USED, width], &vec![f32::NAN; USED * width]).unwrap();
        let (mut r, input) =
            (Recording::default(), Normed { xn: x, sums: &sums, partials: partials as u32 });
        op.record_normed(&mut r, "test", *epilogue, EPS, input, [words, &y], weights).unwrap();
        run(gpu, r);
        let found: Vec<f32> = block_on(y.read(gpu)).unwrap();
        assert_close(&format!("{}, {partials} sums", case.what), &found, &expected, 2e-5, 1e-5);
    }
}

/// Rows of an expert that fill no four, parts that end inside of one, more rows than a workgroup has.
#[test]
fn experts() {
    let gpu = gpu();
    for sums in sums(&gpu) {
        check_experts(&gpu, sums);
    }
}

fn check_experts(gpu: &Gpu, sums: Sums) {
    use Epilogue::{Add, SwiGlu, SwiGluClamped};
    let products = [
        (SwiGluClamped, DType::F32),
        (Add, DType::F32),
        (SwiGlu, DType::Q8_0),
        (Add, DType::MXFP4),
    ];
    let op = block_on(Experts::new(gpu, sums, &products, true)).unwrap();
    for (epilogue, dtype) in products {
        for (each, limit, room, tokens) in
            [(2, u64::MAX, 1, 1), (22, u64::MAX, 3, 2), (22, 20_000, 3, 3), (150, 3_000, 1, 1)]
        {
            let m = matrices(dtype, each);
            let linear = &m.load(gpu, Join::Concat, limit);
            let parts = linear.parts.len();
            assert!(limit == u64::MAX || dtype != DType::F32 || parts > 1);
            for biased in [false, true] {
                let what = format!(
                    "{sums:?} {epilogue:?} {dtype} {each} rows, {parts} parts, {tokens} of {room}, bias {biased}"
                );
                let plain = &m.plain[0];
                check(gpu, &op, &Case { what, epilogue, linear, plain, biased, room, tokens });
            }
        }
    }
}

#[test]
fn experts_refuse_a_wrong_shape() {
    let gpu = gpu();
    let op = block_on(Experts::new(&gpu, Sums::Shared, &[], true)).unwrap();
    let linear = matrices(DType::F32, 4).load(&gpu, Join::Concat, u64::MAX);
    let make = |name: &str, shape: &[usize]| Tensor::zeros(&gpu, name, shape).unwrap();
    let [frame, x, y] = [make("frame", &[FRAME]), make("x", &[1, COLS]), make("y", &[1, 2, 4])];
    let chosen = make("chosen", &[1, USED, 2]);
    let refused = |epilogue, experts| {
        let weights = ExpertWeights { w: &linear, bias: None, experts };
        let tensors = [&frame, &x, &chosen, &y];
        op.record(&mut Recording::default(), "test", epilogue, tensors, weights).unwrap_err()
    };
    let error = refused(Epilogue::SwiGlu, EXPERTS).to_string();
    assert_eq!(error, "experts: y has shape [1, 2, 4], expected [1, 2, 2]");
    let error = refused(Epilogue::Add, EXPERTS).to_string();
    assert_eq!(error, "experts: x has shape [1, 96], expected [1, 2, 96]");
    for (epilogue, experts) in [(Epilogue::Store, EXPERTS), (Epilogue::Add, 3)] {
        let error = refused(epilogue, experts).to_string();
        assert!(error.contains("as many rows each"), "{error}");
    }
    let route = block_on(Route::new(&gpu)).unwrap();
    let params = RouteParams { experts: 4, used: 5, scale: 1.0 };
    let (logits, chosen) = (make("logits", &[1, 4]), make("chosen", &[1, 5, 2]));
    let r = &mut Recording::default();
    let error = route.record(r, "test", params, [&frame, &logits, &chosen]).unwrap_err();
    assert!(error.to_string().contains("at most 16 of the 4 experts"), "{error}");
}
