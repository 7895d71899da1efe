//! Bytes to meaning: model files and quantised blocks. No GPU.
//!
//! | file | what it holds |
//! |---|---|
//! | [`source`] | a file read in ranges: mapped, in memory, or fetched |
//! | [`shards`] | the files of a split model as one |
//! | [`gguf`] | the head of a GGUF file: metadata and where each tensor lies |
//! | `head` | the parser behind it |
//! | `cursor` | the reader behind the parser, which trusts no count and no length |
//! | [`value`] | what a metadata key can hold |
//! | [`formats`] | the types a weight can have: a table |
//! | [`blocks`] | the values of blocks as `f32` |
//! | `layout` | the bytes of each block type |
//! | `repack` | weights as the kernels read them |
//! | `safetensors` | a folder of Hugging Face's as a GGUF file; feature `cli` |
//! | [`inspect`] | a file told as text, for `brooklet inspect` |
pub mod blocks;
mod cursor;
pub mod formats;
pub mod gguf;
mod head;
pub mod inspect;
mod layout;
mod repack;
#[cfg(feature = "cli")]
pub mod safetensors;
pub mod shards;
pub mod source;
pub mod value;

pub use blocks::dequantize;
pub use formats::{DType, Format, Numbers};
pub use gguf::{Gguf, TensorInfo};
pub use inspect::describe;
pub use repack::{Packed, repack, words_of_eight_units};
#[cfg(feature = "cli")]
pub use safetensors::{Folder, Quant};
pub use shards::Shards;
pub use source::{BytesSource, Source};
#[cfg(not(target_arch = "wasm32"))]
pub use source::{DEFAULT_MODEL, FileSource, default_model};
pub(crate) use value::shown;
pub use value::{Array, Value};
