//! Tokenizer, detokenizer, sampler. No GPU.
//!
//! | file | what it holds |
//! |---|---|
//! | `vocab` | what a file says of its vocabulary |
//! | `pre` | how text is split before pairs are merged, by llama.cpp's names |
//! | `ends` | which tokens end a text or a turn |
//! | `sentence_piece` | SentencePiece's merging |
//! | `tokenizer` | text to ids, ids to bytes |
//! | `detokenizer` | a stream of ids to text, never half a character |
//! | `sampler` | logits to an id |
//! | `stop` | texts that end a stream |
mod detokenizer;
mod ends;
mod pre;
mod random;
mod sampler;
mod sentence_piece;
mod stop;
mod tokenizer;
mod vocab;

pub use detokenizer::Detokenizer;
#[cfg(feature = "cli")]
pub(crate) use random::random;
pub use sampler::{Sampler, SamplerSettings, expect_numbers};
pub use stop::StopTexts;
pub use tokenizer::Tokenizer;
#[cfg(test)]
pub(crate) use tokenizer::byte_of_char;
pub use vocab::Vocab;
