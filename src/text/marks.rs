//! Control tokens that stand in somebody's text are text: they are marked before a template puts the text between its own
//! control tokens, and the tokenizer passes over what is marked.
use super::Tokenizer;
use super::tokenizer::{Merging, SPACE};
use crate::Result;
use std::borrow::Cow;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::tokenizer::Normalizer;
use tokenizers::{
    Model, NormalizedString, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// Stands before each character of what looks like a control token and is text. Unicode promises that it is no
/// character, so no text needs it.
pub(crate) const MARK: char = '\u{fdd0}';

/// A text without marks, as it is shown.
pub(crate) fn without_marks(text: &str) -> String {
    text.replace(MARK, "")
}

impl Tokenizer {
    /// A text with its control tokens marked as text.
    pub(crate) fn marked(&self, text: &str) -> String {
        self.marked_if(text, |id| self.is_control(id))
    }

    /// The same with nothing marked but what ends or begins a turn or a text.
    pub(crate) fn marked_ends(&self, text: &str) -> String {
        let begins = |id| {
            let piece = self.piece(id);
            // `<|im_start|>`, `<|start_header_id|>`, `<start_of_turn>`, `[INST]`
            piece.contains("start") || piece.contains("INST") || Some(id) == self.bos()
        };
        self.marked_if(text, |id| self.is_control(id) && (self.eog().contains(&id) || begins(id)))
    }

    fn marked_if(&self, text: &str, wanted: impl Fn(u32) -> bool) -> String {
        let text: Cow<str> = match text.contains(MARK) {
            true => text.replace(MARK, "\u{fffd}").into(),
            false => text.into(),
        };
        let mut marked = String::with_capacity(text.len());
        for (part, special) in self.parts(&text) {
            match special.filter(|&id| wanted(id)) {
                Some(_) => part.chars().for_each(|c| marked.extend([MARK, c])),
                None => marked.push_str(&part),
            }
        }
        marked
    }

    /// The text between special tokens, and those with their ids.
    fn parts(&self, text: &str) -> Vec<(String, Option<u32>)> {
        let added = self.inner.get_added_vocabulary();
        let parts = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        let parts = parts.get_splits(OffsetReferential::Original, OffsetType::None);
        let id = |tokens: &Option<Vec<tokenizers::Token>>| Some(tokens.as_ref()?.first()?.id);
        parts.into_iter().map(|(text, _, tokens)| (text.to_owned(), id(tokens))).collect()
    }

    /// The ids of a text whose control tokens count as such, but for those that are marked. Neither BOS nor EOS is
    /// added.
    pub fn encode_marked(&self, text: &str) -> Result<Vec<u32>> {
        if !text.contains(MARK) {
            return self.encode(text, false);
        }
        let (mut ids, mut plain) = (Vec::new(), String::new());
        for (part, special) in self.parts(text) {
            match special {
                Some(id) if !plain.ends_with(MARK) => {
                    self.encode_plain(&without_marks(&plain), &mut ids)?;
                    plain.clear();
                    ids.push(id);
                }
                _ => plain.push_str(&part),
            }
        }
        self.encode_plain(&without_marks(&plain), &mut ids)?;
        ids.retain(|&id| (id as usize) < self.len());
        Ok(ids)
    }

    /// Adds the ids of a text in which nothing is a special token.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| {
            crate::Error::Tokenizer(format!("the text cannot be split: {e}"))
        };
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalized).map_err(wrong)?;
        }
        self.encode_normalized(normalized, ids)
    }

    /// The ids of a text in the middle of another: nothing in it is a special token, and nothing is put before it.
    pub fn encode_within(&self, text: &str) -> Result<Vec<u32>> {
        let text = match self.merging {
            Merging::ByteLevel => text.into(),
            Merging::Scores(_) | Merging::Lines => text.replace(' ', &SPACE.to_string()),
        };
        let mut ids = Vec::new();
        self.encode_normalized(NormalizedString::from(text), &mut ids)?;
        ids.retain(|&id| (id as usize) < self.len());
        Ok(ids)
    }

    fn encode_normalized(&self, normalized: NormalizedString, ids: &mut Vec<u32>) -> Result<()> {
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| {
            crate::Error::Tokenizer(format!("the text cannot be split: {e}"))
        };
        if !matches!(self.merging, Merging::ByteLevel) {
            return self.merge(normalized.get(), ids);
        }
        let model = self.inner.get_model();
        let mut split = PreTokenizedString::from(normalized);
        if let Some(splits) = self.inner.get_pre_tokenizer() {
            splits.pre_tokenize(&mut split).map_err(wrong)?;
        }
        split.tokenize(|part| model.tokenize(part.get())).map_err(wrong)?;
        let encoding = split.into_encoding(None, 0, OffsetType::None).map_err(wrong)?;
        ids.extend(encoding.get_ids());
        Ok(())
    }
}
