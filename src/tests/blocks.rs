//! Dequantisation against the `gguf` Python package, and facts about the types.
use super::gguf_file::random_blocks;
use crate::format::blocks::ggml_type_name;
use crate::format::{DType, dequantize};

fn dequantized(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![f32::NAN; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    dequantize(dtype, bytes, &mut values);
    values
}

/// The same bits as ggml's Python package, whose formulas round in the same order.
#[test]
fn every_type_matches_the_python_package() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/quants");
    for dtype in DType::ALL {
        let blocks = std::fs::read(format!("{folder}/{dtype}.blocks")).unwrap();
        let expected = std::fs::read(format!("{folder}/{dtype}.values")).unwrap();
        let expected: Vec<f32> =
            expected.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let found = dequantized(dtype, &blocks);
        assert_eq!(found.len(), expected.len(), "{dtype}");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{dtype}[{i}]: found {found}, expected {expected}"
            );
        }
    }
}

/// The largest exponents: ggml has no scale that is not a number, and its Python package warns of what overflows.
#[test]
fn mxfp4_scales_go_on_to_the_largest_exponent() {
    for (e, two, three) in
        [(254, 2f32.powi(127), 1.5 * 2f32.powi(127)), (255, f32::INFINITY, f32::INFINITY)]
    {
        let values = dequantized(DType::MXFP4, &[vec![e], vec![0xb2; 16]].concat());
        assert_eq!([values[0], values[16]], [two, -three], "{e}");
    }
}

#[test]
fn unaligned_bytes_give_the_same_values() {
    for dtype in DType::ALL {
        let blocks = random_blocks(dtype, 1, 512);
        let shifted = [vec![0xff], blocks.clone()].concat();
        assert_eq!(dequantized(dtype, &shifted[1..]), dequantized(dtype, &blocks), "{dtype}");
    }
}

#[test]
fn any_bytes_will_do() {
    for dtype in DType::ALL {
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            dequantized(dtype, &vec![byte; 2 * dtype.block_bytes()]);
        }
    }
}

#[test]
fn random_blocks_are_the_size_of_weights() {
    for dtype in DType::ALL {
        let values = dequantized(dtype, &random_blocks(dtype, 7, 4096));
        let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let rms = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
        assert!(
            (0.1..0.4).contains(&largest) && (0.02..0.2).contains(&rms),
            "{dtype}: largest {largest}, rms {rms}"
        );
    }
}

#[test]
#[should_panic(expected = "dequantize: 18 bytes do not hold 31 elements")]
fn a_length_mismatch_is_a_bug() {
    dequantize(DType::Q4_0, &[0; 18], &mut [0.0; 31]);
}

#[test]
fn types_are_known_by_number_and_name() {
    for dtype in DType::ALL {
        assert_eq!(DType::from_ggml(dtype.ggml_id()), Some(dtype));
        assert_eq!(ggml_type_name(dtype.ggml_id()), Some(dtype.name()));
    }
    assert_eq!(DType::from_ggml(16), None);
    assert_eq!(ggml_type_name(16), Some("IQ2_XXS"));
    assert_eq!(ggml_type_name(99), None);
    let refused = [
        "Q8_1", "Q8_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "NVFP4",
    ];
    let names: Vec<_> = (0..64).filter_map(ggml_type_name).collect();
    for name in refused {
        assert!(names.contains(&name), "{name}");
        assert!(DType::ALL.iter().all(|dtype| dtype.name() != name), "{name}");
    }
    assert_eq!(format!("[{:>5}]", DType::Q4K), "[ Q4_K]");
    let facts: Vec<_> = DType::ALL.iter().map(|d| (d.block_len(), d.block_bytes())).collect();
    let expected = [(1, 4), (1, 2), (1, 2), (32, 18), (32, 20), (32, 22), (32, 24), (32, 34)];
    assert_eq!(facts[..8], expected);
    assert_eq!(facts[8..13], [(256, 84), (256, 110), (256, 144), (256, 176), (256, 210)]);
    assert_eq!(facts[13..], [(32, 18), (256, 136), (32, 17), (256, 66), (256, 54)]);
}
