//! A stream of ids to text, in constant memory and never half a character.
use super::Tokenizer;

/// Holds back at most three bytes of a character that is not complete yet.
#[derive(Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
    text: String,
}

impl Detokenizer {
    /// For a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on where another held back `bytes`.
    pub fn holding(bytes: &[u8]) -> Self {
        Self { pending: bytes.iter().copied().take(3).collect(), text: String::new() }
    }

    /// What is held back: the beginning of a character.
    pub fn held(&self) -> &[u8] {
        &self.pending
    }

    /// Takes a token and gives the text that is complete now. Bytes that belong to no character
    /// become U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        self.push_bytes(tokenizer.bytes(id))
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let (start, valid) = (done, done + error.valid_up_to());
                    // Valid up to there: nothing is replaced.
                    self.text.push_str(&String::from_utf8_lossy(&self.pending[start..valid]));
                    done = valid;
                    let Some(bad) = error.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    done += bad;
                }
            }
        }
        self.pending.drain(..done);
        &self.text
    }

    /// The end of the stream: what is still held back becomes U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }
}
