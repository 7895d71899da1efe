//! Tests that need crate-private items.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps what is not there should fail right there"
)]
mod alone;
mod blocks;
#[cfg(feature = "cli")]
mod chart;
#[cfg(feature = "templates")]
mod chat;
mod classes;
mod config;
mod experts;
mod families;
mod faults;
mod gemma4;
mod gguf;
mod gguf_file;
mod golden;
#[cfg(feature = "grammar")]
mod grammar;
mod half_discard;
mod hostile;
mod inspect;
mod invariants;
mod kernels;
mod kv;
mod loading;
mod loops;
mod ops;
#[cfg(feature = "cli")]
mod perplexity;
mod portability;
mod portions;
mod rows;
#[cfg(feature = "cli")]
mod scan;
mod shaders;
mod shards;
mod snapshot;
#[cfg(feature = "cli")]
mod soak;
mod states;
mod stop;
#[cfg(feature = "cli")]
mod stream;
pub(crate) mod support;
#[cfg(feature = "templates")]
mod templates;
mod text;
mod tiny;
#[cfg(feature = "templates")]
mod told;
mod tuning;
#[cfg(feature = "templates")]
mod turns;
mod vocabularies;
