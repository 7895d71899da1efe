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
//! | `conversation` | what a template is asked to render, which template, and who renders it |
//! | `template` | a conversation to one text, by the template of its model; feature `templates` |
//! | `json` | JSON as templates take it |
//! | `dumps` | JSON as templates write it; feature `templates` |
//! | `marks` | control tokens in somebody's text, which are text |
//! | `word` | what a token adds to a text |
mod conversation;
mod detokenizer;
#[cfg(feature = "templates")]
mod dumps;
mod ends;
mod json;
mod marks;
mod pre;
mod random;
mod sampler;
mod sentence_piece;
mod stop;
#[cfg(feature = "templates")]
mod template;
mod tokenizer;
mod vocab;
mod word;

pub use conversation::{Conversation, Portable, Renderer, TemplateSource, Templates};
pub use detokenizer::Detokenizer;
pub use json::Json;
#[cfg(feature = "cli")]
pub(crate) use random::random;
pub use sampler::{Sampler, SamplerSettings, expect_numbers};
pub use stop::StopTexts;
#[cfg(feature = "templates")]
pub use template::Template;
pub use tokenizer::Tokenizer;
#[cfg(test)]
pub(crate) use tokenizer::byte_of_char;
pub use vocab::Vocab;
pub use word::Word;
