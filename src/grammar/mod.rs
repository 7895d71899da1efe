//! Outputs that are held to a grammar: JSON by a schema, a regular expression, or a context-free grammar. The grammars
//! are `llguidance`'s. No GPU. Feature `grammar`.
//!
//! | file | what it holds |
//! |---|---|
//! | `syntax` | a grammar as its author writes it, checked |
//! | `schema` | what of a JSON schema is supported, and where something is not |
//! | `vocabulary` | the tokens of a model as a trie, made once |
//! | `matcher` | one output: which tokens may come next |
//!
//! ```no_run
//! # use brooklet::{grammar::{Grammar, GrammarVocabulary}, session::Generation, text::Tokenizer};
//! # fn held(tokenizer: std::sync::Arc<Tokenizer>, generation: &mut Generation) -> brooklet::Result<()> {
//! let vocabulary = GrammarVocabulary::new(tokenizer)?;
//! let grammar = Grammar::json_schema(r#"{"type": "object", "properties": {"age": {"type": "integer"}}}"#)?;
//! generation.constrain(Box::new(vocabulary.matcher(&grammar)?));
//! # Ok(())
//! # }
//! ```
mod matcher;
mod schema;
mod syntax;
mod vocabulary;

pub use matcher::GrammarMatcher;
pub use syntax::Grammar;
pub use vocabulary::GrammarVocabulary;

use crate::Error;

/// What `llguidance` says, as one sentence: it adds states and traces on further lines. What is wrong with a regular
/// expression is on the last.
fn sentence(message: impl std::fmt::Display) -> String {
    let message = message.to_string();
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_end_matches(['.', ':', ';']);
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(cause) => format!("{first}: {cause}"),
        None => first.to_owned(),
    }
}

fn wrong(text: impl Into<String>) -> Error {
    Error::Grammar(text.into())
}
