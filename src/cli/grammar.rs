//! What an output has to be, as the user says it.
use super::model::read_text;
use brooklet::grammar::Grammar;
use brooklet::{Error, Result};
use clap::Args;
use std::path::Path;

#[derive(Args)]
#[command(next_help_heading = "Grammar")]
#[group(multiple = false)]
pub(crate) struct GrammarArgs {
    /// Write JSON that is valid by this schema, and end: the schema itself, or a file
    #[arg(short, long, value_name = "SCHEMA|FILE")]
    json_schema: Option<String>,
    /// Write what this regular expression matches as a whole, and end
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Write what this grammar gives, in Lark's syntax, from its rule `start`, and end: the grammar itself, or a file
    #[arg(long, value_name = "RULES|FILE")]
    grammar: Option<String>,
}

impl GrammarArgs {
    /// The grammar, if one was asked for.
    pub(crate) fn chosen(&self) -> Result<Option<Grammar>> {
        let Self { json_schema, regex, grammar } = self;
        match (json_schema, regex, grammar) {
            (Some(schema), ..) => {
                named("--json-schema", Grammar::json_schema(&text(schema)?)).map(Some)
            }
            (_, Some(pattern), _) => named("--regex", Grammar::regex(pattern)).map(Some),
            (.., Some(rules)) => {
                let rules = text(rules)?;
                if rules.contains("::=") {
                    return Err(Error::Usage(
                        "--grammar: this is GBNF, and the grammars here are written as Lark's are: `start: \"yes\" | \
                         \"no\"`; docs/grammar.md says how"
                            .into(),
                    ));
                }
                named("--grammar", Grammar::lark(&rules)).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What the user wrote, or what is in the file that it names.
fn text(given: &str) -> Result<String> {
    let itself = given.contains(['{', '\n', ':', '"']);
    match !itself || Path::new(given).is_file() {
        true => read_text(Path::new(given)),
        false => Ok(given.to_owned()),
    }
}

fn named(flag: &str, grammar: Result<Grammar>) -> Result<Grammar> {
    grammar.map_err(|error| Error::Usage(format!("{flag}: {error}")))
}
