//! brooklet: a language-model engine that never has to stop.
//!
//! The map, in the order data flows; dependencies point the other way only:
//!
//! | module | what it holds |
//! |---|---|
//! | [`format`](mod@format) | bytes to meaning: GGUF, quantised blocks; no GPU |
//! | [`text`] | tokenizer, detokenizer, sampler; no GPU |
//! | [`gpu`] | the only module that names wgpu: device, tensors, kernels, recordings |
//! | [`shaders`] | the files of WGSL, which kernels are joined from |
//! | [`ops`] | one file an op: parameters, kernel, `record` |
//! | [`reference`](mod@reference) | what each kernel should compute, in plain Rust |
//! | [`model`] | config, weights, the sink-and-ring cache, the forward pass |
//! | [`session`] | a stream: feed, generate, stop |
//! | `chat` | a conversation over a session, and what a template makes of it |
//! | [`wire`] | what a program says to a stream and is told of it, in JSON |
//! | `grammar` | outputs that are held to a JSON schema, a regular expression or a grammar; feature `grammar` |
//! | [`tune`] | which kernels suit this device: measured once, then kept |
//! | `kept` | the cache folder; native only |
//! | `eval` | perplexity, latencies, recall, sinks and pictures, which make the claims checkable; native only |
pub mod chat;
pub mod error;
#[cfg(feature = "cli")]
pub mod eval;
pub mod format;
pub mod gpu;
#[cfg(feature = "grammar")]
pub mod grammar;
#[cfg(not(target_arch = "wasm32"))]
pub mod kept;
pub mod model;
pub mod ops;
pub mod reference;
pub mod session;
pub mod shaders;
pub mod text;
pub mod tune;
pub mod wire;

#[cfg(test)]
mod tests;

pub use error::{Error, Result};
