//! The kind of vocabulary that Gemma 4 has: BPE of lines as they are.
use super::{Keys, file, printed, read, strings, tokenizer, with, without};
use crate::format::{Array, Value};
use std::collections::BTreeMap;

/// `<pad> <eos> <bos> <unk>`, 256 bytes, what merges make of letters, spaces and line ends, and a run of these that nothing
/// makes.
fn lines() -> Keys {
    let bytes = (0..=255).map(|b| format!("<0x{b:02X}>"));
    let special = ["<pad>", "<eos>", "<bos>", "<unk>"].map(String::from);
    let parts = ["▁", "a", "b", "\n", "▁▁", "▁a", "ab", "b▁", "\n\n", "\n\n\n\n\n"];
    let tokens = special.into_iter().chain(bytes).chain(parts.map(String::from));
    let types = [3; 4].into_iter().chain([6; 256]).chain([1; 10]).collect();
    BTreeMap::from([
        ("model", Value::String("gemma4".into())),
        ("tokens", strings(tokens)),
        ("merges", strings(["▁ ▁", "▁ a", "a b", "b ▁", "\n \n"])),
        ("token_type", Value::Array(Array::I32(types))),
        ("bos_token_id", Value::U32(2)),
        ("eos_token_id", Value::U32(1)),
    ])
}

/// By hand, from llama.cpp's rule: pairs are merged in their order all over a line, spaces are letters, a run of line ends is
/// a token or is merged, and what has no token is its bytes.
#[test]
fn lines_are_merged_as_they_are() {
    let tokenizer = tokenizer(lines());
    assert!(tokenizer.warnings().is_empty(), "{:?}", tokenizer.warnings());
    for (text, ids) in [
        ("", &[][..]),
        ("ab", &[266]),
        ("a a", &[261, 265]),
        // a space more goes with the space before, and what is left of it with the letter
        ("b  a", &[262, 264, 261]),
        ("b ab", &[262, 265, 262]),
        ("b b", &[267, 262]),
        ("a\na", &[261, 263, 261]),
        ("a\n\n\nb", &[261, 268, 263, 262]),
        ("a\n\n\n\n\nb", &[261, 269, 262]),
        ("a\n\n\n\n\n\nb", &[261, 268, 268, 268, 262]),
        ("\n \n", &[263, 260, 263]),
        ("a\r\nb", &[261, 4 + 13, 263, 262]),
        ("aéb", &[261, 4 + 0xc3, 4 + 0xa9, 262]),
        ("a<eos>b▁", &[261, 1, 267]),
    ] {
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(printed(&tokenizer, ids), text.replace('▁', " ").replace("<eos>", ""));
    }
    // Whatever the file says.
    for said in [lines(), with(lines(), "add_bos_token", Value::Bool(false))] {
        assert_eq!(super::tokenizer(said).encode("a", true).unwrap(), [2, 261]);
    }
    // A byte without a token says nothing, and keeps its neighbours apart.
    let mut keys = lines();
    let Some(Value::Array(Array::String(tokens))) = keys.get_mut("tokens") else { panic!() };
    tokens[4 + 0xa9] = "zz".into();
    let ids = super::tokenizer(keys).encode("aéb", false).unwrap();
    assert_eq!(ids, [261, 4 + 0xc3, 262]);
    let error = read(file(without(lines(), &["merges"]))).err().unwrap();
    assert!(error.to_string().contains("tokenizer.ggml.merges"), "{error}");
}
