//! Any bytes as a GGUF file: read the head, describe it, and dequantise the first block of every tensor.
//!
//! `cargo +nightly fuzz run gguf fuzz/corpus/gguf tests/fixtures/gguf`
#![no_main]
use brooklet::format::{BytesSource, Gguf, Source, dequantize, inspect::describe};
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

fuzz_target!(|bytes: &[u8]| {
    let source = BytesSource::new("fuzz.gguf", bytes);
    let Ok(gguf) = block_on(Gguf::read(&source)) else { return };
    describe(&gguf);
    let _ = gguf.need_u32("llama.block_count");
    for tensor in &gguf.tensors {
        let Ok(dtype) = tensor.dtype() else { continue };
        let block = tensor.offset..tensor.offset + dtype.block_bytes() as u64;
        let block = block_on(source.bytes(block)).expect("a tensor that was accepted lies inside the file");
        let mut values = vec![0.0; dtype.block_len()];
        dequantize(dtype, &block, &mut values);
    }
});
