//! Text to ids and ids to bytes, from a vocabulary that is not trusted.
use super::Vocab;
use super::ends::ends;
use super::pre::pre;
use super::sentence_piece::SentencePiece;
use super::vocab::{BYTE, CONTROL, UNKNOWN, USER_DEFINED};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use tokenizers::models::bpe::{BPE, Vocab as Ids};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, Model, OffsetReferential, OffsetType, SplitDelimiterBehavior};

/// SentencePiece's visible space.
pub(super) const SPACE: char = '\u{2581}';

/// The tokenizer of one model.
pub struct Tokenizer {
    /// Finds special tokens, and for byte-level BPE does all the rest.
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) merging: Merging,
    tokens: Vec<String>,
    /// What each token prints; control tokens print nothing.
    bytes: Vec<Vec<u8>>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Ids before and after every text.
    before: Option<u32>,
    after: Option<u32>,
    /// Every id that ends a text or a turn.
    eog: Vec<u32>,
    /// Whether each id is no part of anybody's text.
    control: Vec<bool>,
    warnings: Vec<String>,
}

/// What merges the text between special tokens.
pub(super) enum Merging {
    /// All of it is what [`tokenizers`] does.
    ByteLevel,
    /// By scores.
    Scores(SentencePiece),
    /// By pairs in their order, line by line. What has no token is its bytes.
    Lines,
}

fn wrong(text: impl Into<String>) -> Error {
    Error::Tokenizer(text.into())
}

impl Tokenizer {
    /// Checks a vocabulary and builds its tokenizer.
    pub fn new(mut vocab: Vocab) -> Result<Self> {
        let mut warnings = Vec::new();
        vocab.settle(&mut warnings)?;
        let eog = ends(&mut vocab);
        let (mut inner, add_bos, merging) = match vocab.model.as_str() {
            "gpt2" => byte_level(&vocab, &mut warnings)?,
            "llama" => sentence_piece(&vocab)?,
            "gemma4" => lines(&vocab, &mut warnings)?,
            other => {
                return Err(wrong(format!(
                    "a vocabulary of the kind {other:?}; gpt2 (byte-level BPE), llama \
                     (SentencePiece) and gemma4 (BPE of lines) work"
                )));
            }
        };
        let raw: HashMap<usize, Vec<u8>> = vocab.raw.into_iter().collect();
        let special = |(id, (text, &kind)): (usize, (&String, &i32))| {
            let special = matches!(kind, UNKNOWN | CONTROL | USER_DEFINED);
            let wanted = special && !text.is_empty() && !raw.contains_key(&id);
            // Phi 3 has three special tokens of another kind than its own.
            let strips =
                vocab.strips && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str());
            let token = || AddedToken::from(text.clone(), true).normalized(false).rstrip(strips);
            wanted.then(token)
        };
        let specials = vocab.tokens.iter().zip(&vocab.types).enumerate().filter_map(special);
        let specials: Vec<_> = specials.collect();
        inner.add_special_tokens(specials).map_err(|e| wrong(e.to_string()))?;

        let byte_level = vocab.model == "gpt2";
        let from_char = if byte_level { byte_of_char() } else { HashMap::new() };
        let tokens = vocab.tokens.iter().zip(&vocab.types).enumerate();
        let bytes = tokens.map(|(id, (text, &kind))| match (kind, raw.get(&id)) {
            (CONTROL, _) => Vec::new(),
            (_, Some(bytes)) if byte_level || kind == USER_DEFINED => bytes.clone(),
            (_, Some(bytes)) => spaced(bytes),
            (USER_DEFINED, _) => text.clone().into_bytes(),
            _ if byte_level => printed_bytes(text, &from_char),
            (UNKNOWN, _) => "\u{2585}".into(),
            (BYTE, _) => byte_token(text).map_or_else(|| text.clone().into_bytes(), |b| vec![b]),
            _ => text.replace(SPACE, " ").into_bytes(),
        });
        Ok(Self {
            inner,
            merging,
            bytes: bytes.collect(),
            bos: vocab.bos,
            eos: vocab.eos,
            before: vocab.bos.filter(|_| vocab.add_bos.unwrap_or(add_bos)),
            after: vocab.eos.filter(|_| vocab.add_eos.unwrap_or(false)),
            eog,
            control: vocab.types.iter().map(|kind| matches!(*kind, CONTROL | UNKNOWN)).collect(),
            tokens: vocab.tokens,
            warnings,
        })
    }

    /// The ids of a text. Control tokens written in it count as such. `add_special` adds BOS and EOS
    /// where the file asks for them.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let wanted = |id: Option<u32>| id.filter(|_| add_special);
        let mut ids: Vec<u32> = wanted(self.before).into_iter().collect();
        let split = |e| wrong(format!("the text cannot be split: {e}"));
        if let Merging::ByteLevel = self.merging {
            ids.extend(self.inner.encode_fast(text, false).map_err(split)?.get_ids());
        } else {
            let added = self.inner.get_added_vocabulary();
            let parts = added.extract_and_normalize(self.inner.get_normalizer(), text);
            let parts = parts.get_splits(OffsetReferential::Normalized, OffsetType::None);
            for (text, _, special) in parts {
                match special {
                    Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                    None => self.merge(text, &mut ids)?,
                }
            }
        }
        // What stands for a byte that the vocabulary lacks says nothing.
        ids.retain(|&id| (id as usize) < self.len());
        ids.extend(wanted(self.after));
        Ok(ids)
    }

    /// The ids of a text without special tokens, normalised, where `tokenizers` does not do all of it.
    pub(super) fn merge(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let model = self.inner.get_model();
        let id = |text: &str| model.token_to_id(text);
        if let Merging::Scores(pieces) = &self.merging {
            pieces.encode(text, id, ids);
            return Ok(());
        }
        for piece in line_pieces(text) {
            // A run of line ends that is a token need not come of merging.
            match id(piece).filter(|_| piece.starts_with('\n')) {
                Some(id) => ids.push(id),
                None => {
                    let split = |e| wrong(format!("the text cannot be split: {e}"));
                    let tokens = model.tokenize(piece).map_err(split)?;
                    ids.extend(tokens.iter().map(|token| token.id));
                }
            }
        }
        Ok(())
    }

    /// The ids of a text that a stream begins with. Those of an empty one are BOS, where the model has one.
    pub fn encode_first(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text, true)?;
        Ok(if ids.is_empty() { self.bos.into_iter().collect() } else { ids })
    }

    /// What is odd about ids that [`Tokenizer::encode`] gave for a whole text, if anything: a BOS or an EOS that the
    /// text itself has, where one is added. A model that sees it twice may answer worse.
    pub fn doubled(&self, ids: &[u32]) -> Option<String> {
        let twice = |pair: &[u32], id: Option<u32>| id.is_some_and(|id| pair == [id, id]);
        let first = ids.get(..2).is_some_and(|pair| twice(pair, self.before));
        let last = ids.len().checked_sub(2).is_some_and(|at| twice(&ids[at..], self.after));
        let (id, verb) = match (first, last) {
            (true, _) => (self.before?, "begins"),
            (_, true) => (self.after?, "ends"),
            _ => return None,
        };
        Some(format!(
            "the text {verb} with {:?}, which the model's file asks to add: it is there twice; \
             leave it out of the text",
            self.piece(id)
        ))
    }

    /// What is odd about the vocabulary and does not keep it from being used: sentences for the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A token as the vocabulary writes it.
    pub fn piece(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or("", String::as_str)
    }

    /// What a token prints; nothing for control tokens. May be part of a character.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: a vocabulary without tokens is refused.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Every id that ends a text or a turn, in order.
    pub fn eog(&self) -> &[u32] {
        &self.eog
    }

    /// Whether a token stands for what nobody writes: a control token, or the unknown one.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).is_some_and(|&control| control)
    }

    /// The id of a token, as the vocabulary writes it.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece).filter(|&id| (id as usize) < self.len())
    }

    /// The id that a text has to start with, if the file asks for one.
    pub fn begins_with(&self) -> Option<u32> {
        self.before
    }

    /// The id a text starts with, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id a text ends with, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }
}

/// Ids by text; of tokens that are written alike the first counts. What is not UTF-8 is in no text.
fn ids(vocab: &Vocab) -> Ids {
    let mut ids = Ids::default();
    let mut raw = vocab.raw.iter().map(|&(id, _)| id).peekable();
    for (id, text) in vocab.tokens.iter().enumerate() {
        if raw.next_if_eq(&id).is_none() {
            ids.entry(text.clone()).or_insert(id as u32);
        }
    }
    ids
}

/// What is built for one kind of vocabulary; whether a text starts with BOS unless the file says otherwise.
type Parts = (tokenizers::Tokenizer, bool, Merging);

fn byte_level(vocab: &Vocab, warnings: &mut Vec<String>) -> Result<Parts> {
    let pre = pre(vocab.pre.as_deref())?;
    let mut ids = ids(vocab);
    let merges = merges(vocab, &ids, warnings);
    every_byte(&mut ids, vocab, byte_of_char().into_keys().map(String::from));
    let bpe = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(pre.ignore_merges);
    let bpe = bpe.build().map_err(|e| wrong(e.to_string()))?;
    let split = |pattern: &&str| {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        split.map(PreTokenizerWrapper::Split).map_err(|e| wrong(e.to_string()))
    };
    let mut steps = pre.splits.iter().map(split).collect::<Result<Vec<_>>>()?;
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
    let mut inner = tokenizers::Tokenizer::new(bpe);
    inner.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok((inner, pre.add_bos, Merging::ByteLevel))
}

/// A byte without a token still keeps its neighbours apart: it gets an id beyond the vocabulary.
fn every_byte(ids: &mut Ids, vocab: &Vocab, bytes: impl Iterator<Item = String>) {
    let mut beyond = vocab.tokens.len() as u32;
    for byte in bytes {
        ids.entry(byte).or_insert_with(|| {
            beyond += 1;
            beyond - 1
        });
    }
}

/// Gemma 4's: pairs are merged in text as it is, whose spaces are visible, all over a line.
fn lines(vocab: &Vocab, warnings: &mut Vec<String>) -> Result<Parts> {
    let mut ids = ids(vocab);
    let merges = merges(vocab, &ids, warnings);
    every_byte(&mut ids, vocab, (0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    let bpe = BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).build();
    let mut inner = tokenizers::Tokenizer::new(bpe.map_err(|e| wrong(e.to_string()))?);
    let visible = Replace::new(" ", SPACE.to_string()).map_err(|e| wrong(e.to_string()))?;
    inner.with_normalizer(Some(visible)).map_err(|e| wrong(e.to_string()))?;
    Ok((inner, true, Merging::Lines))
}

/// Runs of line ends, and what lies between them.
fn line_pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let ends = rest.starts_with('\n');
        let end = rest.find(|c| (c == '\n') != ends).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The merges that can happen, each once. The others are skipped, with a warning.
fn merges(vocab: &Vocab, ids: &Ids, warnings: &mut Vec<String>) -> Vec<(String, String)> {
    let (mut seen, mut merges, mut skipped) = (HashSet::new(), Vec::new(), Vec::new());
    for line in &vocab.merges {
        // A token may begin with a space, but is never empty.
        let first = line.chars().next().map_or(0, char::len_utf8);
        let pair = line[first..].find(' ').map(|at| (&line[..first + at], &line[first + at + 1..]));
        let known = |&(a, b): &(&str, &str)| {
            [a, b, &format!("{a}{b}")].iter().all(|&text| ids.contains_key(text))
        };
        match pair.filter(known) {
            Some(pair) if seen.insert(pair) => merges.push((pair.0.to_owned(), pair.1.to_owned())),
            Some(_) => {}
            None => skipped.push(line),
        }
    }
    if let Some(line) = skipped.first() {
        warnings.push(format!(
            "{} of {} merges are skipped, as {line:?} is: they are not two tokens that make a third",
            skipped.len(),
            vocab.merges.len()
        ));
    }
    merges
}

fn sentence_piece(vocab: &Vocab) -> Result<Parts> {
    let ids = ids(vocab);
    let bytes = (0..=255u8).map(|b| ids.get(&format!("<0x{b:02X}>")).copied()).collect();
    let pieces = SentencePiece { scores: vocab.scores.clone(), bytes, unknown: vocab.unk };
    let bpe = BPE::builder().vocab_and_merges(ids, Vec::new()).build();
    let space = SPACE.to_string();
    let visible = Replace::new(" ", space.clone()).map_err(|e| wrong(e.to_string()))?;
    let mut steps = vec![];
    if vocab.add_space_prefix.unwrap_or(true) {
        steps.push(NormalizerWrapper::Prepend(Prepend::new(space)));
    }
    steps.push(NormalizerWrapper::Replace(visible));
    let mut inner = tokenizers::Tokenizer::new(bpe.map_err(|e| wrong(e.to_string()))?);
    inner.with_normalizer(Some(Normalizers::new(steps))).map_err(|e| wrong(e.to_string()))?;
    Ok((inner, true, Merging::Scores(pieces)))
}

/// Byte-level BPE writes each byte as a visible character: printable Latin-1 as itself, the others
/// from U+0100 on.
pub(crate) fn byte_of_char() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (0x100u32..).filter_map(char::from_u32);
    let mut char_of = |b: u8| if printable(b) { Some(char::from(b)) } else { others.next() };
    (0..=255u8).filter_map(|b| char_of(b).map(|c| (c, b))).collect()
}

fn printed_bytes(text: &str, from_char: &HashMap<char, u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match from_char.get(&c) {
            Some(&byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// SentencePiece's bytes with its visible space as a plain one.
fn spaced(bytes: &[u8]) -> Vec<u8> {
    let visible = SPACE.to_string().into_bytes();
    let mut spaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let space = rest.strip_prefix(visible.as_slice());
        spaced.push(if space.is_some() { b' ' } else { byte });
        rest = space.unwrap_or(&rest[1..]);
    }
    spaced
}

/// The byte of a token like `<0x0A>`.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}
