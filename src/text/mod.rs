//! Tokenizer, detokenizer, sampler. No GPU.
