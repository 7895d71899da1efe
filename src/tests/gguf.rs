//! Files that are right: what the reader says of them, and how little it reads.
use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use pollster::block_on;

use super::gguf_file::GgufFile;
use crate::format::{Array, BytesSource, DType, FileSource, Gguf, Source, Value};
use crate::{Error, Result};

fn every_value() -> GgufFile {
    GgufFile::new()
        .with("a.u8", Value::U8(255))
        .with("a.i8", Value::I8(-128))
        .with("a.u16", Value::U16(65_535))
        .with("a.i16", Value::I16(-32_768))
        .with("a.u32", Value::U32(u32::MAX))
        .with("a.i32", Value::I32(i32::MIN))
        .with("a.u64", Value::U64(u64::MAX))
        .with("a.i64", Value::I64(i64::MIN))
        .with("a.f32", Value::F32(0.1))
        .with("a.f64", Value::F64(0.1))
        .with("a.bool", Value::Bool(true))
        .with("a.string", Value::String("héllo".into()))
        .with("s.u8", Value::Array(Array::U8(vec![1, 2])))
        .with("s.i8", Value::Array(Array::I8(vec![-1])))
        .with("s.u16", Value::Array(Array::U16(vec![3])))
        .with("s.i16", Value::Array(Array::I16(vec![-3])))
        .with("s.u32", Value::Array(Array::U32(vec![4])))
        .with("s.i32", Value::Array(Array::I32(vec![-4, 5])))
        .with("s.u64", Value::Array(Array::U64(vec![6])))
        .with("s.i64", Value::Array(Array::I64(vec![-6])))
        .with("s.f32", Value::Array(Array::F32(vec![0.5, 1.5])))
        .with("s.f64", Value::Array(Array::F64(vec![0.25])))
        .with("s.bool", Value::Array(Array::Bool(vec![true, false])))
        .with("s.string", Value::Array(Array::String(vec!["".into(), "▁the".into()])))
        .with("s.none", Value::Array(Array::String(vec![])))
        .with(
            "s.nested",
            Value::Array(Array::Array(vec![
                Array::I32(vec![1]),
                Array::Array(vec![Array::U8(vec![2])]),
            ])),
        )
}

#[test]
fn what_was_written_is_read() {
    for version in [2, 3] {
        let mut file = every_value()
            .with_tensor("token_embd.weight", &[256, 3], DType::Q4K)
            .with_tensor("output_norm.weight", &[5], DType::F32)
            .with_tensor("blk.0.conv.weight", &[32, 2, 3, 4], DType::Q8_0);
        file.version = version;
        let source = file.source();
        let gguf = block_on(Gguf::read(&source)).unwrap();
        assert_eq!(gguf.version, version);
        assert_eq!(gguf.metadata, file.metadata);
        assert_eq!(gguf.alignment, 32);
        assert_eq!(gguf.file(), "test.gguf");
        for (found, (name, dims, type_id, bytes)) in gguf.tensors.iter().zip(&file.tensors) {
            assert_eq!((&found.name, &found.dims, found.type_id), (name, dims, *type_id));
            assert_eq!(found.offset % 32, 0);
            let range = found.offset..found.offset + found.size;
            assert_eq!(*block_on(source.bytes(range)).unwrap(), **bytes, "{name}");
        }
        let conv = gguf.tensor("blk.0.conv.weight").unwrap();
        assert_eq!((conv.cols(), conv.rows()), (32, 24));
        assert_eq!(gguf.tensor("output_norm.weight").unwrap().rows(), 1);
        assert!(gguf.tensor("output.weight").is_none());
    }
}

#[test]
fn the_python_package_is_understood() {
    let bytes = include_bytes!("../../tests/fixtures/gguf/small.gguf");
    let gguf = block_on(Gguf::read(&BytesSource::new("small.gguf", *bytes))).unwrap();
    assert_eq!(gguf.need_str("general.architecture").unwrap(), "llama");
    let numbers = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"];
    let numbers = numbers.map(|name| gguf.get(&format!("test.{name}")).unwrap().integer().unwrap());
    let (large, small) = (18_000_000_000_000_000_000, -9_000_000_000_000_000_000);
    assert_eq!(numbers, [200, -100, 60_000, -30_000, 4_000_000_000, -2_000_000_000, large, small]);
    assert_eq!(gguf.f32("test.f32").unwrap(), Some(0.1));
    assert_eq!(gguf.f32("test.f64").unwrap(), Some(0.1));
    assert_eq!(gguf.bool("test.bool").unwrap(), Some(true));
    assert_eq!(gguf.strings("test.strings").unwrap().unwrap(), ["", "héllo", "wörld", "▁the"]);
    assert_eq!(gguf.i32s("test.i32s").unwrap().unwrap(), [1, -2, 3]);
    assert_eq!(gguf.f32s("test.f32s").unwrap().unwrap(), [0.5, -1.5]);
    assert_eq!(gguf.get("test.bools"), Some(&Value::Array(Array::Bool(vec![true, false]))));
    let nested = Array::Array(vec![Array::I32(vec![1, 2]), Array::I32(vec![3])]);
    assert_eq!(gguf.get("test.nested"), Some(&Value::Array(nested)));

    // Offsets and sizes as GGUFReader tells them.
    let places: Vec<_> = gguf
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.dims.as_slice(), t.offset, t.size))
        .collect();
    assert_eq!(places[0], ("token_embd.weight", &[64, 2][..], 960, 512));
    assert_eq!(places[1], ("output_norm.weight", &[64][..], 1472, 128));
    assert_eq!(places[2], ("blk.0.ffn_up.weight", &[64, 2][..], 1600, 136));
    assert_eq!(places[3], ("blk.0.ffn_down.weight", &[64, 2][..], 1760, 72));
    assert_eq!(places[4], ("blk.0.attn_q.weight", &[256, 1][..], 1856, 0));
    assert_eq!(gguf.tensors[3].dtype().unwrap(), DType::Q4_0);
    assert_eq!(
        gguf.tensors[4].dtype().unwrap_err().to_string(),
        "unsupported: tensor blk.0.attn_q.weight has type IQ2_XXS (16), which brooklet cannot multiply yet; \
         requantise the model to Q4_K_M, for instance"
    );
}

#[test]
fn getters_convert_what_fits_and_name_what_does_not() {
    let gguf = block_on(Gguf::read(&every_value().source())).unwrap();
    assert_eq!(gguf.u32("a.u8").unwrap(), Some(255));
    assert_eq!(gguf.u64("a.u64").unwrap(), Some(u64::MAX));
    assert_eq!(gguf.f32("a.i8").unwrap(), Some(-128.0));
    assert_eq!(gguf.u32("none").unwrap(), None);
    assert_eq!(gguf.strings("s.none").unwrap(), Some(&[][..]));
    let detail = |error: Error| match error {
        Error::Format { file, offset, detail } => {
            assert_eq!(file, "test.gguf");
            (offset, detail)
        }
        other => panic!("{other}"),
    };
    let lacks =
        "the metadata lacks the key none, without which this model cannot be run".to_owned();
    assert_eq!(detail(gguf.need_u32("none").unwrap_err()), (24, lacks));
    assert_eq!(
        detail(gguf.u32("a.i8").unwrap_err()),
        (
            41,
            "the key a.i8 is the i8 -128, but brooklet wants an integer that fits u32 there"
                .to_owned()
        )
    );
    let told = [
        (gguf.u32("a.u64").unwrap_err(), "the key a.u64 is the u64 18446744073709551615"),
        (gguf.u64("a.f32").unwrap_err(), "the key a.f32 is the f32 0.1, but"),
        (
            gguf.f32("a.string").unwrap_err(),
            "the key a.string is a string, but brooklet wants a number (f32) there",
        ),
        (
            gguf.str("a.bool").unwrap_err(),
            "the key a.bool is the bool true, but brooklet wants a string there",
        ),
        (
            gguf.i32s("s.f32").unwrap_err(),
            "is an array of 2 f32, but brooklet wants an array of integers that fit i32 there",
        ),
        (
            gguf.f32s("s.string").unwrap_err(),
            "is an array of 2 string, but brooklet wants an array of numbers there",
        ),
        (
            gguf.index("a.f32").unwrap_err(),
            "the key a.f32 is the f32 0.1, but brooklet wants an integer there",
        ),
        (
            gguf.need_strings("a.u8").unwrap_err(),
            "the key a.u8 is the u8 255, but brooklet wants an array of strings",
        ),
    ];
    for (error, expected) in told {
        let found = error.to_string();
        assert!(found.contains(expected), "found {found}, expected {expected}");
    }
}

/// As llama.cpp reads them, whatever type the writer chose.
#[test]
fn arrays_of_numbers_convert_and_an_index_may_be_none() {
    let file = every_value()
        .with("i.many", Value::Array(Array::I64(vec![1, 3, 1 << 31])))
        .with("i.least", Value::Array(Array::I64(vec![i32::MIN.into(), i32::MAX.into()])));
    let gguf = block_on(Gguf::read(&file.source())).unwrap();
    for (key, expected) in [
        ("s.u8", vec![1, 2]),
        ("s.i8", vec![-1]),
        ("s.u16", vec![3]),
        ("s.i16", vec![-3]),
        ("s.u32", vec![4]),
        ("s.i32", vec![-4, 5]),
        ("s.u64", vec![6]),
        ("s.i64", vec![-6]),
        ("i.least", vec![i32::MIN, i32::MAX]),
    ] {
        let floats: Vec<f32> = expected.iter().map(|&n| n as f32).collect();
        assert_eq!(gguf.i32s(key).unwrap(), Some(expected), "{key}");
        assert_eq!(gguf.f32s(key).unwrap(), Some(floats), "{key}");
    }
    assert!(gguf.i32s("i.many").is_err() && gguf.f32s("s.bool").is_err());
    assert_eq!(gguf.f32s("s.f64").unwrap(), Some(vec![0.25]));
    assert_eq!((gguf.i32s("none").unwrap(), gguf.f32s("none").unwrap()), (None, None));
    let index = |key| gguf.index(key).unwrap();
    assert_eq!(["a.i8", "a.i32", "a.i64", "a.u64", "none"].map(index), [None; 5]);
    assert_eq!(["a.u8", "a.u32"].map(index), [Some(255), Some(u32::MAX)]);
}

#[test]
fn a_string_that_is_not_utf8_is_shown_and_keeps_its_bytes() {
    let list = ["fine", "Zq-a", "Zq-b"].map(str::to_owned).to_vec();
    let file = GgufFile::new()
        .with("a.name", Value::String("cafZq-x".into()))
        .with("a.list", Value::Array(Array::String(list)))
        .with("a.whole", Value::String("héllo".into()));
    let mut bytes = file.bytes();
    for at in 0..bytes.len() - 2 {
        if bytes[at..].starts_with(b"Zq-") {
            bytes[at..at + 3].copy_from_slice(b"\xff\xfe ");
        }
    }
    let gguf = block_on(Gguf::read(&BytesSource::new("test.gguf", bytes))).unwrap();
    assert_eq!(gguf.need_str("a.name").unwrap(), "caf\u{fffd}\u{fffd} x");
    let expected = ["fine", "\u{fffd}\u{fffd} a", "\u{fffd}\u{fffd} b"];
    assert_eq!(gguf.need_strings("a.list").unwrap(), expected);
    let raw = |key| gguf.raw_strings(key).map(|(i, b)| (i, b.to_vec())).collect::<Vec<_>>();
    assert_eq!(raw("a.name"), [(0, b"caf\xff\xfe x".to_vec())]);
    assert_eq!(raw("a.list"), [(1, b"\xff\xfe a".to_vec()), (2, b"\xff\xfe b".to_vec())]);
    assert!(raw("a.whole").is_empty() && raw("none").is_empty());
    assert_eq!(
        gguf.warnings,
        [
            "the value of a.name is not valid UTF-8; what is not is shown as \u{fffd}",
            "the value of a.list is not valid UTF-8, in 2 of 3 strings; what is not is shown as \u{fffd}"
        ]
    );
}

#[test]
fn the_alignment_is_honoured() {
    for alignment in [1, 8, 256] {
        let file = GgufFile::new()
            .with("general.alignment", Value::U32(alignment))
            .with_tensor("a", &[3], DType::F16)
            .with_tensor("b", &[3], DType::F32);
        let source = file.source();
        let gguf = block_on(Gguf::read(&source)).unwrap();
        assert_eq!(gguf.alignment, u64::from(alignment));
        let b = gguf.tensor("b").unwrap();
        assert_eq!(
            *block_on(source.bytes(b.offset..b.offset + b.size)).unwrap(),
            *file.tensors[1].3
        );
    }
}

/// A source that remembers the end of the furthest read.
struct Watched(BytesSource, Cell<u64>, Cell<u32>);

impl Source for Watched {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        self.1.set(self.1.get().max(range.end));
        self.2.set(self.2.get() + 1);
        self.0.bytes(range).await
    }
}

#[test]
fn reads_double_until_the_head_fits() {
    let file = every_value().with_tensor("large", &[1 << 20], DType::F32);
    let whole = block_on(Gguf::read(&file.source())).unwrap();
    for first in [1, 16, 100, 10_000] {
        let source = Watched(file.source(), Cell::new(0), Cell::new(0));
        let gguf = block_on(Gguf::read_from(&source, first)).unwrap();
        assert_eq!((&gguf.metadata, &gguf.tensors), (&whole.metadata, &whole.tensors));
        assert!(
            source.1.get() <= (2 * gguf.data_offset).max(first),
            "{first}: read to {}",
            source.1.get()
        );
        assert_eq!(
            source.2.get() == 1,
            first > gguf.data_offset,
            "{first}: {} reads",
            source.2.get()
        );
    }
}

#[test]
fn a_mapped_file_reads_the_same() {
    let file = every_value().with_tensor("a", &[64], DType::Q5_1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    let source = FileSource::open(&path).unwrap();
    assert_eq!(source.len(), file.bytes().len() as u64);
    assert_eq!(block_on(Gguf::read(&source)).unwrap().metadata, file.metadata);

    let told = |path: &std::path::Path| FileSource::open(path).unwrap_err().to_string();
    assert!(told(folder.path()).ends_with(": this is a directory; name the .gguf file inside it"));
    assert!(
        told(&folder.path().join("none")).ends_with("none: there is no such file; check the path")
    );
    std::fs::write(&path, b"").unwrap();
    assert!(
        told(&path)
            .ends_with("model.gguf: byte 0: the file is empty; perhaps its download never began")
    );
}

#[test]
fn a_range_past_the_end_is_an_error() {
    let source = BytesSource::new("test.gguf", vec![1, 2, 3]);
    assert_eq!(*block_on(source.bytes(1..3)).unwrap(), [2, 3]);
    assert!(block_on(source.bytes(3..3)).unwrap().is_empty());
    for range in [2..4, 4..4, 0..u64::MAX, Range { start: 2, end: 1 }] {
        let error = block_on(source.bytes(range.clone())).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{range:?}: {error}");
    }
    let error = block_on(source.bytes(2..4)).unwrap_err().to_string();
    assert_eq!(
        error,
        "test.gguf: byte 2: the file is truncated: 2 bytes are wanted from here, but it ends at byte 3"
    );
}
