//! Products of a few tokens of as many streams, of every format: against their twins, and each token's bits in any company.
use super::weight_ops::{Case, check_by, matrices};
use crate::format::DType;
use crate::ops::{Epilogue, Join, MatMul, MatMulFew, Variant};
use crate::tests::support::{gpu, noise};
use pollster::block_on;

#[test]
fn a_token_has_the_same_bits_in_any_company() {
    let gpu = gpu();
    let all = Variant::all(&gpu);
    for (i, dtype) in DType::ALL.into_iter().enumerate() {
        // What has kernels of its own, and what goes as a chunk does.
        let variant = if i % 3 == 0 { all[i / 3 % all.len()] } else { Variant::of(&gpu) };
        let epilogue = [Epilogue::Store, Epilogue::SwiGlu, Epilogue::Add][i % 3];
        let (rows, units) = [(70, 8), (34, 24), (6, 16)][i / 3 % 3];
        let products = [(epilogue, dtype)];
        let few = block_on(MatMulFew::new(&gpu, &products, variant)).unwrap();
        let many = block_on(MatMul::new(&gpu, &[], &products, variant)).unwrap();
        let m = matrices(&[(dtype, rows, 32 * units)]);
        let linear = &m.load(&gpu, Join::Concat, u64::MAX);
        let x = noise(11, 19 * linear.cols);
        let mut alone: Option<Vec<u32>> = None;
        for (room, tokens) in [(1, 1), (2, 2), (4, 3), (8, 5), (8, 8), (19, 17)] {
            let what = format!("{dtype} {variant:?}");
            let (plain, bias) = (&m.plain[0][..], i % 2 == 0);
            let case = Case { what, linear, plain, epilogue, bias, room, tokens };
            let x = &x[..room * linear.cols];
            let found = check_by(&gpu, &case, [x, x], |r, tensors, bias| match &few {
                Some(few) => few.record(r, "few", epilogue, tensors, linear, bias).unwrap(),
                None => many.record_many(r, "few", epilogue, tensors, linear, bias).unwrap(),
            });
            // What is added to begins with the same numbers in the first row.
            let first = &found[..epilogue.outputs(rows)];
            let first: Vec<_> = first.iter().map(|y| y.to_bits()).collect();
            let alone = alone.get_or_insert_with(|| first.clone());
            assert_eq!(&first, alone, "{dtype} {variant:?}, {tokens} of {room}");
        }
    }
}
