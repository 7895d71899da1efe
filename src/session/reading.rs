//! Tokens of a session as text, until something ends it: one loop for `run` and for conversations.
use super::{Generation, Session};
use crate::Result;
use crate::text::{Detokenizer, StopTexts, Tokenizer};
use serde::Serialize;

/// Why there is no more text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The model chose a token that ends its text.
    EndOfText,
    /// A stop text was met.
    StopText,
    /// As many tokens as were asked for have been read.
    Length,
    /// A cache that cannot forget is full.
    CacheFull,
    /// Whoever reads has had enough.
    Stopped,
}

/// One step of [`Reading::next`].
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A token, and the text that can be shown with it.
    Token {
        /// The id.
        token: u32,
        /// May be empty: half a character, or the beginning of a stop text.
        text: String,
    },
    /// Nothing follows. What was held back is in [`Reading::finish`].
    End(Ended),
}

/// A generation that is read as text.
pub struct Reading {
    generation: Generation,
    detokenizer: Detokenizer,
    stop: StopTexts,
    /// Tokens that end the text. They are in the stream, and not in the text.
    ends: Vec<u32>,
    left: u64,
    ended: Option<Ended>,
}

impl Reading {
    /// Reads until one of the tokens in `ends`, a stop text, or so many tokens.
    pub fn new(generation: Generation, ends: &[u32], stop: StopTexts, tokens: u64) -> Self {
        let (detokenizer, ends) = (Detokenizer::new(), ends.to_vec());
        Self { generation, detokenizer, stop, ends, left: tokens, ended: None }
    }

    /// The same after another reading of the stream, which held back the beginning of a character.
    pub fn going_on(self, detokenizer: Detokenizer) -> Self {
        Self { detokenizer, ..self }
    }

    /// The next token with its text, or why there is none. Its future can be dropped at any time.
    pub async fn next(&mut self, session: &mut Session, tokenizer: &Tokenizer) -> Result<Read> {
        if let Some(ended) = self.ended {
            return Ok(Read::End(ended));
        }
        if self.left == 0 {
            return Ok(self.end(Ended::Length));
        }
        let Some(token) = self.generation.next(session).await? else {
            return Ok(self.end(Ended::CacheFull));
        };
        if self.ends.contains(&token) {
            return Ok(self.end(Ended::EndOfText));
        }
        self.left -= 1;
        let (text, met) = self.stop.push(self.detokenizer.push(tokenizer, token));
        if met {
            self.ended = Some(Ended::StopText);
        }
        Ok(Read::Token { token, text })
    }

    fn end(&mut self, why: Ended) -> Read {
        self.ended = Some(why);
        Read::End(why)
    }

    /// What was held back, at the end of a text that no stop text has ended.
    pub fn finish(&mut self) -> String {
        if self.ended == Some(Ended::StopText) {
            return String::new();
        }
        let (rest, met) = self.stop.push(self.detokenizer.finish());
        if met { rest } else { rest + &self.stop.finish() }
    }

    /// Where the tokens come from.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The same, to set it.
    pub fn generation_mut(&mut self) -> &mut Generation {
        &mut self.generation
    }

    /// What holds back the beginning of a character.
    pub fn detokenizer(&self) -> &Detokenizer {
        &self.detokenizer
    }
}
