//! Files that are wrong, each in one way, and what is said about it.
use pollster::block_on;

use super::gguf_file::GgufFile;
use crate::Error;
use crate::format::{Array, BytesSource, DType, Gguf, Value};

#[track_caller]
fn refused(bytes: Vec<u8>, expected: &str) {
    match block_on(Gguf::read(&BytesSource::new("test.gguf", bytes))) {
        Ok(gguf) => panic!("accepted {gguf:?}, expected {expected}"),
        Err(error @ (Error::Format { .. } | Error::Unsupported(_))) => {
            let found = error.to_string();
            assert!(
                found.contains("test.gguf: ") && found.contains(expected),
                "found {found}, expected {expected}"
            );
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn tensor(dims: &[u64], type_id: u32, bytes: usize) -> GgufFile {
    let mut file = GgufFile::new();
    file.tensors.push(("a.weight".into(), dims.to_vec(), type_id, vec![0; bytes]));
    file
}

/// `file` with the bytes of `value` at `at`.
fn patched(file: &GgufFile, at: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = file.bytes();
    bytes[at..at + value.as_ref().len()].copy_from_slice(value.as_ref());
    bytes
}

/// Where the entry of the first tensor begins in a file without metadata, and its offset field.
const TENSOR: usize = 24;
const OFFSET: usize = TENSOR + 8 + 8 + 4 + 8 + 4;

#[test]
fn not_gguf() {
    refused(vec![], "byte 0: the file is truncated: the magic GGUF should follow");
    refused(b"GG".to_vec(), "at least 4 bytes, but it ends after 2 more");
    refused(
        b"<!doctype html>".to_vec(),
        r#"this is not a GGUF file: it begins with "<!do", not "GGUF""#,
    );
    refused(b"\x80\x02}q".to_vec(), r#"begins with "\x80\x02}q""#);
}

#[test]
fn versions() {
    let version = |bytes: [u8; 4]| patched(&GgufFile::new(), 4, bytes);
    refused(version(1u32.to_le_bytes()), "a GGUF file of version 1,");
    refused(version(4u32.to_le_bytes()), "a GGUF file of version 4; brooklet reads 2 and 3");
    refused(version(3u32.to_be_bytes()), "a big-endian GGUF file");
    refused(version(0u32.to_le_bytes()), "a GGUF file of version 0");
}

#[test]
fn counts_that_the_file_cannot_hold() {
    let one = GgufFile::new().with("a", Value::Array(Array::U64(vec![1])));
    refused(
        patched(&one, 8, u64::MAX.to_le_bytes()),
        "1 metadata keys and 18446744073709551615 tensors should follow",
    );
    refused(
        patched(&one, 16, (1u64 << 60).to_le_bytes()),
        "the file is truncated: 1152921504606846976 metadata keys",
    );
    refused(
        patched(&one, 24, u64::MAX.to_le_bytes()),
        "a metadata key of 18446744073709551615 bytes should follow",
    );
    refused(
        patched(&one, 41, (1u64 << 40).to_le_bytes()),
        "the value of a, 1099511627776 elements, should follow",
    );
    let strings = GgufFile::new().with("a", Value::Array(Array::String(vec!["b".into()])));
    refused(
        patched(&strings, 41, (1u64 << 61).to_le_bytes()),
        "2305843009213693952 strings, should follow",
    );
    let nested = GgufFile::new().with("a", Value::Array(Array::Array(vec![Array::U8(vec![1])])));
    refused(
        patched(&nested, 41, 1000u64.to_le_bytes()),
        "1000 arrays, should follow, at least 12000 bytes",
    );
}

#[test]
fn metadata_that_breaks_the_rules() {
    let text = GgufFile::new().with("key", Value::String("abc".into()));
    refused(patched(&text, 32, [0xff]), "byte 32: a metadata key is not valid UTF-8");
    refused(
        patched(&text, 35, 13u32.to_le_bytes()),
        "the value of key has type 13, but GGUF has types 0 to 12",
    );
    refused(GgufFile::new().with("", Value::U8(1)).bytes(), "byte 24: a metadata key is empty");
    let twice =
        GgufFile::new().with("b", Value::U8(1)).with("a", Value::U8(1)).with("b", Value::U8(2));
    refused(twice.bytes(), "byte 52: the key b appears twice");
    let array = GgufFile::new().with("key", Value::Array(Array::Bool(vec![true])));
    refused(patched(&array, 39, 99u32.to_le_bytes()), "the value of key has elements of type 99");
    refused(
        patched(&array, 51, [2]),
        "byte 51: the value of key is the bool 2, but a bool is 0 or 1",
    );
    let deep = (0..4).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    refused(
        GgufFile::new().with("key", Value::Array(deep)).bytes(),
        "nests arrays deeper than 3 levels",
    );
    for value in [
        Value::U32(0),
        Value::U32(33),
        Value::I32(-32),
        Value::String("32".into()),
        Value::U64(1 << 40),
    ] {
        let what = format!(
            "the key general.alignment is {}, but it must be a power of two",
            value.describe()
        );
        let mut bytes = GgufFile::new().with("general.alignmenX", value).bytes();
        bytes[48] = b't';
        refused(bytes, &what);
    }
}

#[test]
fn tensors_that_break_the_rules() {
    refused(
        tensor(&[], 0, 4).bytes(),
        "byte 24: the tensor a.weight has 0 dimensions, but a tensor has 1 to 4",
    );
    refused(tensor(&[1; 5], 0, 4).bytes(), "the tensor a.weight has 5 dimensions");
    refused(
        patched(&tensor(&[1], 0, 4), TENSOR + 16, u32::MAX.to_le_bytes()),
        "has 4294967295 dimensions",
    );
    refused(tensor(&[4, 0], 0, 4).bytes(), "has shape [4, 0], but no dimension may be 0");
    refused(tensor(&[1 << 32, 1 << 32], 0, 4).bytes(), "more elements than fit u64");
    refused(
        tensor(&[1 << 62], 0, 4).bytes(),
        "has shape [4611686018427387904], more bytes than fit u64",
    );
    refused(tensor(&[33, 32], 2, 4).bytes(), "has 33 columns, but Q4_0 comes in blocks of 32");
    refused(tensor(&[128], 12, 4).bytes(), "has 128 columns, but Q4_K comes in blocks of 256");
    let mut nameless = tensor(&[1], 0, 4);
    nameless.tensors[0].0.clear();
    refused(nameless.bytes(), "byte 24: a tensor's name is empty");
    refused(patched(&tensor(&[1], 0, 4), TENSOR + 8, [0xff]), "a tensor's name is not valid UTF-8");
    let twice =
        GgufFile::new().with_tensor("a", &[1], DType::F32).with_tensor("a", &[1], DType::F32);
    refused(twice.bytes(), "byte 57: the tensor a appears twice");
}

#[test]
fn tensors_out_of_place() {
    let file = tensor(&[8], 0, 32);
    refused(
        patched(&file, OFFSET, 4u64.to_le_bytes()),
        "the tensor a.weight is at offset 4, which is not a multiple",
    );
    let truncated = "the file is truncated: the tensor a.weight takes 32 bytes from byte 96, but the file ends at byte 96";
    refused(patched(&file, OFFSET, 32u64.to_le_bytes()), truncated);
    refused(patched(&file, OFFSET, (u64::MAX - 31).to_le_bytes()), "past any file's end");
    let mut bytes = file.bytes();
    bytes.pop();
    refused(bytes, "takes 32 bytes from byte 64, but the file ends at byte 95");
    let two =
        GgufFile::new().with_tensor("a", &[64], DType::F32).with_tensor("b", &[64], DType::F32);
    refused(
        patched(&two, 57 + 8 + 1 + 4 + 8 + 4, 32u64.to_le_bytes()),
        "byte 57: the tensors a and b overlap",
    );
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let mut file = tensor(&[], 0, 4);
    file.tensors[0].0 = format!("\x1b[2J{}", "x".repeat(5000));
    let error = block_on(Gguf::read(&file.source())).unwrap_err().to_string();
    assert!(
        error.contains(r"\u{1b}[2Jxxx")
            && error.contains("x… has 0 dimensions")
            && error.len() < 250,
        "{error}"
    );
}

/// A file cut short is refused, at whatever byte.
#[test]
fn every_truncation_is_told() {
    let file = GgufFile::new()
        .with("general.name", Value::String("short".into()))
        .with("list", Value::Array(Array::String(vec!["a".into(), "b".into()])))
        .with_tensor("a", &[32], DType::Q8_0)
        .with_tensor("b", &[8], DType::F32);
    let bytes = file.bytes();
    for length in 0..bytes.len() {
        refused(bytes[..length].to_vec(), "the file is truncated: ");
    }
}
