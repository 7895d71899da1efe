//! What a token is to whoever compares outputs with rules.
use super::Tokenizer;

/// What a token adds to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// These bytes, which may be part of a character.
    Text(&'a [u8]),
    /// Nothing that anybody writes: a control token, or one that ends a text, by its name.
    Control(&'a str),
}

impl Tokenizer {
    /// What a token adds to a text; an id beyond the vocabulary adds nothing.
    pub fn word(&self, id: u32) -> Word<'_> {
        match self.is_control(id) || self.eog().contains(&id) {
            true => Word::Control(self.piece(id)),
            false => Word::Text(self.bytes(id)),
        }
    }
}
