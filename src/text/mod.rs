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
//! | `template` | a conversation to one text, by the template of its model |
//! | `json` | JSON as templates take it |
//! | `dumps` | JSON as templates write it |
//! | `marks` | control tokens in somebody's text, which are text |
mod detokenizer;
#[cfg(feature = "chat")]
mod dumps;
mod ends;
#[cfg(feature = "chat")]
mod json;
#[cfg(feature = "chat")]
mod marks;
mod pre;
mod random;
mod sampler;
mod sentence_piece;
mod stop;
#[cfg(feature = "chat")]
mod template;
mod tokenizer;
mod vocab;

pub use detokenizer::Detokenizer;
#[cfg(feature = "chat")]
pub use json::Json;
#[cfg(feature = "cli")]
pub(crate) use random::random;
pub use sampler::{Sampler, SamplerSettings, expect_numbers};
pub use stop::StopTexts;
#[cfg(feature = "chat")]
pub use template::{Conversation, Template};
pub use tokenizer::Tokenizer;
#[cfg(test)]
pub(crate) use tokenizer::byte_of_char;
pub use vocab::Vocab;
