//! What `brooklet inspect` prints.
use pollster::block_on;

use super::gguf_file::GgufFile;
use crate::format::inspect::describe;
use crate::format::{Array, DType, Gguf, Value};

#[test]
fn a_file_is_told_as_tables() {
    let mut file = GgufFile::new()
        .with("general.name", Value::String("two\nlines".into()))
        .with("llama.rope.freq_base", Value::F32(10_000.0))
        .with(
            "tokenizer.ggml.tokens",
            Value::Array(Array::String((0..500).map(|i| format!("t{i}")).collect())),
        )
        .with("nested", Value::Array(Array::Array(vec![Array::I32(vec![1, 2])])))
        .with_tensor("token_embd.weight", &[256, 100], DType::Q4K)
        .with_tensor("output_norm.weight", &[256], DType::F32);
    file.tensors.push(("blk.0.attn_q.weight".into(), vec![256, 2], 16, vec![0; 132]));
    let mut found = describe(&block_on(Gguf::read(&file.source())).unwrap());
    let offset = block_on(Gguf::read(&file.source())).unwrap().data_offset;
    for (name, relative) in [("<0>", 0), ("<1>", 14_400), ("<2>", 15_424)] {
        found = found.replace(&(offset + relative).to_string(), name);
    }
    let expected = r#"test.gguf: GGUF version 3, 4 metadata keys, 3 tensors

key                    type         value
general.name           string       two\nlines
llama.rope.freq_base   f32          10000.0
tokenizer.ggml.tokens  string[500]  ["t0", "t1", "t2", "t3", "t4", "t5", …]
nested                 array[1]     [i32[2]]

tensor               type          dims       size      offset
token_embd.weight    Q4_K          256 x 100  14.1 KiB  <0>
output_norm.weight   F32           256        1.0 KiB   <1>
blk.0.attn_q.weight  IQ2_XXS (16)  256 x 2    ?         <2>

type          tensors  elements  size
Q4_K          1        25600     14.1 KiB
F32           1        256       1.0 KiB
IQ2_XXS (16)  1        512       ?
total         3        26368     15.1 KiB
"#;
    assert_eq!(found, expected);
}

#[test]
fn an_empty_file_has_no_tables() {
    let gguf = block_on(Gguf::read(&GgufFile::new().source())).unwrap();
    assert_eq!(describe(&gguf), "test.gguf: GGUF version 3, 0 metadata keys, 0 tensors\n");
}
