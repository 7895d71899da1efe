//! A grammar as its author writes it.
use super::{schema, sentence, wrong};
use crate::{Error, Result};
use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use serde_json::Value;

/// What an output has to be: checked for itself, and the same for every model.
#[derive(Clone, Debug)]
pub struct Grammar {
    pub(super) top: TopLevelGrammar,
    /// What errors call it.
    kind: &'static str,
}

impl Grammar {
    /// JSON that is valid by a schema. An error names the first thing that is not supported, and where it stands:
    /// nothing is left out of account. Keywords that JSON Schema does not know are.
    pub fn json_schema(text: &str) -> Result<Self> {
        let schema = serde_json::from_str(text)
            .map_err(|error| wrong(format!("the JSON schema is not JSON: {error}")))?;
        Self::json_schema_value(schema)
    }

    /// The same of a schema that has been parsed.
    pub fn json_schema_value(mut schema: Value) -> Result<Self> {
        schema::prepare(&mut schema)?;
        Self::of_schema(schema.clone()).checked().map_err(|error| schema::located(&schema, error))
    }

    /// A JSON object with whatever in it.
    pub fn json_object() -> Result<Self> {
        Self::json_schema(r#"{"type": "object"}"#)
    }

    /// A text that a regular expression matches from its first character to its last, in the syntax of Rust's `regex`
    /// without look-around.
    pub fn regex(pattern: &str) -> Result<Self> {
        Self { top: TopLevelGrammar::from_regex(pattern), kind: "regular expression" }.checked()
    }

    /// A text that a context-free grammar gives, in `llguidance`'s variant of Lark's syntax, from its rule `start`.
    pub fn lark(rules: &str) -> Result<Self> {
        Self { top: TopLevelGrammar::from_lark(rules.to_owned()), kind: "grammar" }.checked()
    }

    pub(super) fn of_schema(schema: Value) -> Self {
        Self { top: TopLevelGrammar::from_json_schema(schema), kind: "JSON schema" }
    }

    /// Itself, if it can be compiled.
    pub(super) fn checked(self) -> Result<Self> {
        let init = GrammarInit::Serialized(self.top.clone());
        let limits = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        // What is wrong with a grammar may be a panic there.
        let compiled = llguidance::panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            init.to_internal(None, limits).map(drop)
        }));
        match compiled {
            Ok(()) => Ok(self),
            Err(error) => Err(self.refused(&sentence(error))),
        }
    }

    pub(super) fn refused(&self, why: &str) -> Error {
        wrong(format!("the {} cannot be used: {}", self.kind, reworded(why)))
    }
}

/// What `llguidance` says of what it does not support, with what to do.
fn reworded(why: &str) -> String {
    if let Some(keys) = why.strip_prefix("Unimplemented keys: ") {
        let keys = keys.trim_matches(['[', ']']);
        return format!("{keys} is not supported; leave it out");
    }
    if let Some(format) = why.strip_prefix("Unknown format: ") {
        return format!("the format {format:?} is not known; leave it out, or say it as a pattern");
    }
    match why {
        _ if why.starts_with("oneOf constraints are not supported") => {
            "oneOf works where no two of its schemas can match the same; use anyOf".to_owned()
        }
        _ if why.starts_with("panic: ") => "it is beyond the compiler of grammars".to_owned(),
        other => other.to_owned(),
    }
}
