//! One output that is held to a grammar, token by token.
use super::{sentence, wrong};
use crate::Result;
use crate::session::Constraint;
use llguidance::{Matcher, TokenParser};
use std::sync::Arc;

/// Where one output stands in its grammar: which tokens may come next, and whether it may end.
pub struct GrammarMatcher {
    matcher: Matcher,
    /// The tokens that end a text.
    ends: Arc<[u32]>,
    /// Tokens after which nothing follows: accepted once the grammar had come to its end.
    beyond: usize,
}

impl GrammarMatcher {
    pub(super) fn new(parser: TokenParser, ends: Arc<[u32]>) -> Result<Self> {
        let mut it = Self { matcher: Matcher::new(Ok(parser)), ends, beyond: 0 };
        // A grammar that allows nothing but the empty text has ended before it begins.
        it.matcher.consume_tokens(&[]).map_err(|error| wrong(sentence(error)))?;
        Ok(it)
    }

    /// Whether the output is complete as it is, so that it may end here.
    pub fn may_end(&mut self) -> bool {
        self.has_ended() || self.matcher.is_accepting().unwrap_or(false)
    }

    /// Whether the output has to end here.
    pub fn has_ended(&self) -> bool {
        self.matcher.stop_reason().is_ok() && self.matcher.is_stopped()
    }

    fn stuck(&self, error: impl std::fmt::Display) -> crate::Error {
        let why = match sentence(error) {
            none if none == "NoExtensionBias" => "it allows nothing here".to_owned(),
            why => why,
        };
        wrong(format!(
            "no token of this model can go on as the grammar wants ({why}); allow more, or take simpler rules"
        ))
    }
}

impl Constraint for GrammarMatcher {
    fn ban(&mut self, banned: &mut [u32]) -> Result<()> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| self.stuck(error))?;
        let allowed = allowed.as_slice();
        for (i, word) in banned.iter_mut().enumerate() {
            *word |= !allowed.get(i).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        if self.has_ended() && self.ends.contains(&token) {
            self.beyond += 1;
            return Ok(());
        }
        let took = self.matcher.try_consume_tokens(&[token]).map_err(|error| self.stuck(error))?;
        match took {
            1 => Ok(()),
            _ => Err(wrong(format!(
                "token {token} came, and the grammar does not allow it there; roll the grammar back when tokens are \
                 taken back, and feed nothing in the middle of an output"
            ))),
        }
    }

    fn roll_back(&mut self, tokens: usize) -> Result<()> {
        let beyond = tokens.min(self.beyond);
        let rolled = self.matcher.rollback(tokens - beyond);
        rolled.map_err(|error| {
            wrong(format!(
                "the output cannot be rolled back by {tokens} tokens: {}",
                sentence(error)
            ))
        })?;
        self.beyond -= beyond;
        Ok(())
    }

    fn forced(&mut self) -> Vec<u32> {
        if self.has_ended() { Vec::new() } else { self.matcher.compute_ff_tokens() }
    }
}
