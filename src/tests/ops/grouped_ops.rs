//! Many tokens grouped by their experts, and products of such groups, against their twins.
use super::run;
use super::weight_ops::{Matrices, matrices_of};
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{
    Epilogue, ExpertTiles, ExpertWeights, ExpertsMany, FRAME, GroupExperts, Join, Linear, Product,
    SumExperts,
};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

fn frame(gpu: &Gpu, tokens: usize) -> Tensor {
    Tensor::upload(gpu, "frame", &[FRAME], &[5u32, tokens as u32, 1, 0]).unwrap()
}

const WAYS: [ExpertTiles; 2] = [ExpertTiles::Rows, ExpertTiles::Tiles];

/// What tokens choose.
#[derive(Clone, Copy, Debug)]
enum Choices {
    /// As it comes, but never some of the experts.
    Mixed,
    /// All of them the same experts, the last ones first.
    Same,
}

/// Different experts for every token: [T, K].
fn choices(kind: Choices, [tokens, used, experts]: [usize; 3]) -> Vec<u32> {
    let of_token = |token: usize| match kind {
        Choices::Same => (0..used).map(|slot| (experts - 1 - slot) as u32).collect::<Vec<_>>(),
        Choices::Mixed => {
            let values = noise(token as u64, experts);
            let mut order: Vec<u32> = (0..experts as u32).collect();
            // Every third one is unused as long as others are left.
            let rank = |&e: &u32| (e % 3 == 1, values[e as usize].to_bits());
            order.sort_by_key(rank);
            order.truncate(used);
            order
        }
    };
    (0..tokens).flat_map(of_token).collect()
}

/// [T, K, 2] of the device, whose shares are noise.
fn uploaded(gpu: &Gpu, chosen: &[u32], [room, used]: [usize; 2]) -> Tensor {
    let shares = noise(5, chosen.len());
    let words = chosen.iter().zip(shares).flat_map(|(&id, share)| [id, share.to_bits()]);
    let words: Vec<u32> = words.collect();
    Tensor::upload(gpu, "chosen", &[room, used, 2], &words).unwrap()
}

/// Experts that are none, one, few and the most; tokens that fill no tile, one exactly, and many; fewer than there is room for.
#[test]
fn group_experts() {
    let gpu = gpu();
    let op = block_on(GroupExperts::new(&gpu)).unwrap();
    let sizes = [
        (1, 1, 2, 2),
        (3, 1, 7, 5),
        (8, 8, 64, 64),
        (5, 2, 33, 32),
        (128, 8, 65, 64),
        (300, 16, 40, 37),
        (512, 16, 512, 512),
    ];
    for (experts, used, room, tokens) in sizes {
        for kind in [Choices::Mixed, Choices::Same] {
            for tiles in WAYS {
                let what =
                    format!("{tokens} of {room} to {used} of {experts}, {kind:?}, {tiles:?}");
                let chosen = choices(kind, [room, used, experts]);
                let shape @ [most, stride] = tiles.groups([room, used, experts]);
                let unwritten = vec![u32::MAX; most * stride];
                let groups = Tensor::upload(&gpu, "groups", &shape, &unwritten).unwrap();
                let words = uploaded(&gpu, &chosen, [room, used]);
                let mut r = Recording::default();
                let tensors = [&frame(&gpu, tokens), &words, &groups];
                op.record(&mut r, "test", experts, tensors).unwrap();
                run(&gpu, r);
                let found: Vec<u32> = block_on(groups.read(&gpu)).unwrap();
                let found: Vec<_> = found.chunks_exact(stride).collect();
                let chosen = &chosen[..tokens * used];
                let expected = reference::group_experts(chosen, experts, tiles.tokens());
                assert!(expected.len() <= most, "{what}: {} tiles", expected.len());
                for (found, (expert, choices)) in found.iter().zip(&expected) {
                    let count = found[1] as usize;
                    assert_eq!((found[0], &found[2..2 + count]), (*expert, &choices[..]), "{what}");
                }
                assert!(found[expected.len()..].iter().all(|tile| tile[1] == 0), "{what}");
            }
        }
    }
}

/// Every pass may need as many tiles as there is room for, and no more.
#[test]
fn there_is_room_for_all_tiles_and_for_no_more() {
    let worst = |[tokens, used, experts]: [usize; 3], tile: usize| {
        // Tokens of each expert: first one each, then as many more as begin a tile, then all that are left.
        let mut own = vec![0; experts];
        let mut left = tokens * used;
        for (more, most) in [(1, 1), (tile, tokens), (1, tokens)] {
            while let Some(n) = own.iter_mut().find(|n| more <= left && **n + more <= most) {
                (*n, left) = (*n + more, left - more);
            }
        }
        assert_eq!(left, 0);
        own.iter().map(|n: &usize| n.div_ceil(tile)).sum::<usize>()
    };
    for tile in [8, 32] {
        for sizes in [[2, 1, 1], [64, 8, 8], [64, 2, 8], [40, 3, 7], [256, 8, 128], [512, 16, 512]]
        {
            let most = GroupExperts::most_tiles(sizes, tile);
            let needed = worst(sizes, tile);
            assert!(needed <= most && most <= needed + 1, "{sizes:?}, {tile}: {needed} of {most}");
        }
    }
    // What a weight costs: 64 tokens to all of 8 experts read each eight times, not 64 times.
    assert_eq!(GroupExperts::most_tiles([64, 8, 8], 8), 8 * 8);
    assert_eq!(GroupExperts::most_tiles([64, 8, 8], 32), 8 * 2);
}

#[test]
fn sum_experts() {
    let gpu = gpu();
    let op = block_on(SumExperts::new(&gpu)).unwrap();
    for (cols, used, room, tokens) in [(1, 1, 2, 2), (65, 3, 5, 4), (288, 16, 3, 3)] {
        let chosen = uploaded(&gpu, &vec![0; room * used], [room, used]);
        let (y, shares) = (noise(2, room * used * cols), noise(5, room * used));
        let start = noise(3, room * cols);
        let upload = |name: &str, shape: &[usize], data: &[f32]| {
            Tensor::upload(&gpu, name, shape, data).unwrap()
        };
        let (x, given) = (upload("x", &[room, cols], &start), upload("y", &[room, used, cols], &y));
        let mut r = Recording::default();
        op.record(&mut r, "test", [&frame(&gpu, tokens), &given, &chosen, &x]).unwrap();
        run(&gpu, r);
        let found: Vec<f32> = block_on(x.read(&gpu)).unwrap();
        let mut expected = start;
        reference::sum_experts(&y, &shares, used, cols, &mut expected[..tokens * cols]);
        let what = format!("{used} of {cols} columns, {tokens} of {room}");
        assert_close(&what, &found, &expected, 1e-6, 1e-5);
    }
}

/// Of every third expert, to which no token goes, nothing is a number.
fn matrices(dtype: DType, [experts, each, cols]: [usize; 3], unused: bool) -> Matrices {
    matrices_of(&[(dtype, experts * each, cols)], |_, mut blocks| {
        let expert = blocks.len() / experts;
        for e in (0..experts).filter(|e| unused && e % 3 == 1) {
            blocks[e * expert..][..expert].fill(0xff);
        }
        blocks
    })
}

struct Case<'a> {
    what: String,
    epilogue: Epilogue,
    linear: &'a Linear,
    plain: &'a [f32],
    biased: bool,
    /// Whether each choice has a row of x of its own.
    own: bool,
    kind: Choices,
    /// E, K, room for tokens, tokens
    sizes: [usize; 4],
}

/// The ops of one way.
struct Ops {
    group: GroupExperts,
    many: ExpertsMany,
    tiles: ExpertTiles,
}

impl Ops {
    fn check(&self, gpu: &Gpu, case: &Case<'_>) {
        let Case { epilogue, linear, plain, own, sizes: [experts, used, room, tokens], .. } = *case;
        let (each, cols, padded) = (linear.rows / experts, linear.cols, linear.padded_cols());
        let width = epilogue.outputs(each);
        let chosen = choices(case.kind, [room, used, experts]);
        let x_shape = if own { vec![room, used, padded] } else { vec![room, padded] };
        let x = noise(6, x_shape.iter().product::<usize>() / padded * cols);
        let mut wide = vec![0.0; x.len() / cols * padded];
        for (wide, x) in wide.chunks_exact_mut(padded).zip(x.chunks_exact(cols)) {
            wide[..cols].copy_from_slice(x);
        }
        let bias = if case.biased { noise(7, linear.rows) } else { vec![] };
        let start = vec![f32::NAN; room * used * width];
        let mut expected = start.clone();
        // Where choices have rows of their own, each is a token that goes to one expert.
        let by_choice: Vec<_> = chosen[..tokens * used].iter().map(|&id| (id, 1.0)).collect();
        let shape = [cols, each, if own { 1 } else { used }, width];
        reference::experts(epilogue, [&x, plain, &bias], shape, &by_choice, &mut expected);

        let upload =
            |name: &str, shape: &[usize], data: &[f32]| Tensor::upload(gpu, name, shape, data);
        let x = upload("x", &x_shape, &wide).unwrap();
        let y = upload("y", &[room, used, width], &start).unwrap();
        let bias = case.biased.then(|| upload("bias", &[linear.rows], &bias).unwrap());
        let words = uploaded(gpu, &chosen, [room, used]);
        let groups = self.tiles.groups([room, used, experts]);
        let groups = Tensor::upload(gpu, "groups", &groups, &vec![9u32; groups[0] * groups[1]]);
        let groups = groups.unwrap();
        let weights = ExpertWeights { w: linear, bias: bias.as_ref(), experts };
        let mut r = Recording::default();
        let tensors = [&frame(gpu, tokens), &words, &groups];
        self.group.record(&mut r, "group", experts, tensors).unwrap();
        self.many.record(&mut r, "test", epilogue, [&x, &groups, &y], weights).unwrap();
        run(gpu, r);
        let found: Vec<f32> = block_on(y.read(gpu)).unwrap();
        let written = tokens * used * width;
        assert_close(&case.what, &found[..written], &expected[..written], 2e-5, 1e-5);
        assert!(found[written..].iter().all(|v| v.is_nan()), "{}: beyond the pass", case.what);
    }
}

/// A gate for each type, in turn.
fn gate(turn: usize) -> Epilogue {
    if turn.is_multiple_of(2) { Epilogue::SwiGlu } else { Epilogue::SwiGluClamped }
}

fn check_products(dtypes: &[DType]) {
    let gpu = gpu();
    for tiles in WAYS {
        let of_type = |(i, &dtype)| [(Epilogue::Store, dtype), (gate(i), dtype)];
        let products: Vec<Product> = dtypes.iter().enumerate().flat_map(of_type).collect();
        let many = block_on(ExpertsMany::new(&gpu, tiles, &products)).unwrap();
        let ops = Ops { group: block_on(GroupExperts::new(&gpu)).unwrap(), many, tiles };
        for (i, &dtype) in dtypes.iter().enumerate() {
            check_type(&gpu, &ops, dtype, i);
        }
    }
}

/// Rows of an expert: two, some that fill no four, more than a workgroup has; experts: one alone, some without tokens; tokens:
/// two, as many as a tile, more; parts that end inside of an expert.
fn check_type(gpu: &Gpu, ops: &Ops, dtype: DType, turn: usize) {
    use Choices::{Mixed, Same};
    let units = if dtype.block_len() > 32 { 8 } else { 3 };
    let cases = [
        ([5, 2], 22, [8, 7], Mixed, 4_000),
        ([1, 1], 2, [2, 2], Same, u64::MAX),
        ([4, 3], 70, [40, 33], Same, 12_000),
    ];
    for (j, ([experts, used], each, [room, tokens], kind, limit)) in cases.into_iter().enumerate() {
        let m = matrices(dtype, [experts, each, 32 * units], experts == 5);
        let linear = &m.load(gpu, Join::Concat, limit);
        assert!(j == 1 || linear.parts.len() > 1, "{dtype}");
        for (epilogue, biased, own) in
            [(gate(turn), j % 2 == 0, false), (Epilogue::Store, j < 2, true)]
        {
            let sizes = [experts, used, room, tokens];
            let what = format!(
                "{:?} {epilogue:?} {dtype} {each} rows, {} parts, {sizes:?}, {kind:?}, bias {biased}",
                ops.tiles,
                linear.parts.len()
            );
            let plain = &m.plain[0];
            ops.check(gpu, &Case { what, epilogue, linear, plain, biased, own, kind, sizes });
        }
    }
}

#[test]
fn products_of_grouped_tokens() {
    check_products(&[DType::F32, DType::MXFP4, DType::Q4K]);
}

#[test]
#[ignore = "every type: ./build.sh test --all"]
fn products_of_grouped_tokens_of_every_type() {
    check_products(&DType::ALL);
}

/// Columns that fill no unit, as `h` has them.
#[test]
fn rows_of_experts_that_fill_no_unit_are_padded() {
    let gpu = gpu();
    for tiles in WAYS {
        let products = [(Epilogue::Add, DType::F16)];
        let many = block_on(ExpertsMany::new(&gpu, tiles, &products)).unwrap();
        let ops = Ops { group: block_on(GroupExperts::new(&gpu)).unwrap(), many, tiles };
        let m = matrices(DType::F16, [3, 5, 84], false);
        let (linear, plain) = (&m.load(&gpu, Join::Concat, u64::MAX), &m.plain[0][..]);
        let (epilogue, what) = (Epilogue::Store, format!("{tiles:?} padded"));
        let (biased, own, kind, sizes) = (false, true, Choices::Same, [3, 2, 9, 9]);
        ops.check(&gpu, &Case { what, epilogue, linear, plain, biased, own, kind, sizes });
    }
}

#[test]
fn products_of_grouped_tokens_refuse_a_wrong_shape() {
    let gpu = gpu();
    let tiles = ExpertTiles::Rows;
    let many = block_on(ExpertsMany::new(&gpu, tiles, &[])).unwrap();
    let linear = matrices(DType::F32, [5, 4, 96], false).load(&gpu, Join::Concat, u64::MAX);
    let make = |name: &str, shape: &[usize]| Tensor::zeros(&gpu, name, shape).unwrap();
    let groups = make("groups", &tiles.groups([4, 2, 5]));
    let [x, own_x, y] = [make("x", &[4, 96]), make("x", &[4, 2, 64]), make("y", &[4, 2, 2])];
    let refused = |epilogue, [x, groups, y]: [&Tensor; 3], experts| {
        let weights = ExpertWeights { w: &linear, bias: None, experts };
        let r = &mut Recording::default();
        many.record(r, "test", epilogue, [x, groups, y], weights).unwrap_err().to_string()
    };
    let gate = Epilogue::SwiGlu;
    let cases = [
        (refused(Epilogue::Add, [&x, &groups, &y], 5), "that stores or has a gate"),
        (refused(gate, [&x, &groups, &y], 3), "experts of as many rows each"),
        (refused(Epilogue::Store, [&x, &groups, &y], 5), "expected [4, 2, 4]"),
        (refused(gate, [&own_x, &groups, &y], 5), "expected [4, 2, 96]"),
        (refused(gate, [&x, &make("groups", &[2, 10]), &y], 5), "groups has shape [2, 10]"),
    ];
    for (found, message) in cases {
        assert!(found.contains(message), "{message:?} is not in {found:?}");
    }
}
