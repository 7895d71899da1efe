//! Text to ids and ids to bytes, from a vocabulary that is not trusted.
use super::Vocab;
use super::pre::pre;
use crate::{Error, Result};
use std::collections::HashMap;
use tokenizers::models::bpe::{BPE, Vocab as Ids};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// Token types of GGUF that matter here.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// SentencePiece's visible space.
const SPACE: char = '\u{2581}';

/// Control tokens that end a text or a turn, by the names models give them.
const ENDS: [&str; 24] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|end|>",
    "<|eot|>",
    "<EOT>",
    "_<EOT>",
    "</s>",
    "<|return|>",
    "<|call|>",
    "<|fim_pad|>",
    "<fim_pad>",
    "<PAD>",
    "<|fim_rep|>",
    "<|repo_name|>",
    "<fim-rep>",
    "<REPO>",
    "<reponame>",
    "<|fim_sep|>",
    "<|file_sep|>",
];

/// The tokenizer of one model.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
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
}

fn wrong(text: impl Into<String>) -> Error {
    Error::Tokenizer(text.into())
}

impl Tokenizer {
    /// Checks a vocabulary and builds its tokenizer.
    pub fn new(vocab: Vocab) -> Result<Self> {
        check(&vocab)?;
        let (mut inner, add_bos) = match vocab.model.as_str() {
            "gpt2" => byte_level(&vocab)?,
            "llama" => (sentence_piece(&vocab)?, true),
            other => {
                return Err(wrong(format!(
                    "a vocabulary of the kind {other:?}; gpt2 (byte-level BPE) and llama \
                     (SentencePiece) work"
                )));
            }
        };
        let special = |(text, &kind): (&String, &i32)| {
            let wanted = matches!(kind, UNKNOWN | CONTROL | USER_DEFINED) && !text.is_empty();
            wanted.then(|| AddedToken::from(text.clone(), true).normalized(false))
        };
        let specials: Vec<_> = vocab.tokens.iter().zip(&vocab.types).filter_map(special).collect();
        inner.add_special_tokens(specials).map_err(|e| wrong(e.to_string()))?;

        let kind = |id: usize| vocab.types.get(id).copied().unwrap_or(1);
        let byte_level = vocab.model == "gpt2";
        let from_char = if byte_level { byte_of_char() } else { HashMap::new() };
        let bytes = vocab.tokens.iter().enumerate().map(|(id, text)| match kind(id) {
            CONTROL => Vec::new(),
            USER_DEFINED => text.clone().into_bytes(),
            _ if byte_level => printed_bytes(text, &from_char),
            UNKNOWN => "\u{2585}".into(),
            BYTE => byte_token(text).map_or_else(|| text.clone().into_bytes(), |b| vec![b]),
            _ => text.replace(SPACE, " ").into_bytes(),
        });
        let bytes = bytes.collect();
        let named = |(id, text): (usize, &String)| {
            (ENDS.contains(&text.as_str()) && kind(id) == CONTROL).then_some(id as u32)
        };
        let mut eog: Vec<u32> = vocab.tokens.iter().enumerate().filter_map(named).collect();
        eog.extend([vocab.eos, vocab.eot].into_iter().flatten());
        eog.sort_unstable();
        eog.dedup();
        Ok(Self {
            inner,
            bytes,
            bos: vocab.bos,
            eos: vocab.eos,
            before: vocab.bos.filter(|_| vocab.add_bos.unwrap_or(add_bos)),
            after: vocab.eos.filter(|_| vocab.add_eos.unwrap_or(false)),
            eog,
            tokens: vocab.tokens,
        })
    }

    /// The ids of a text. Control tokens written in it count as such. `add_special` adds BOS and EOS
    /// where the file asks for them.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| wrong(format!("the text cannot be split: {e}")))?;
        let wanted = |id: Option<u32>| id.filter(|_| add_special);
        let ids = wanted(self.before).into_iter().chain(encoding.get_ids().iter().copied());
        // What stands for a byte that the vocabulary lacks says nothing.
        Ok(ids.chain(wanted(self.after)).filter(|&id| (id as usize) < self.len()).collect())
    }

    /// The ids of a text that a stream begins with. Those of an empty one are BOS, where the model has one.
    pub fn encode_first(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text, true)?;
        Ok(if ids.is_empty() { self.bos.into_iter().collect() } else { ids })
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

    /// The id a text starts with, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The id a text ends with, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }
}

fn check(vocab: &Vocab) -> Result<()> {
    let count = vocab.tokens.len();
    if count == 0 || u32::try_from(count).is_err() {
        return Err(wrong(format!("a vocabulary of {count} tokens")));
    }
    for (name, len) in [("token types", vocab.types.len()), ("scores", vocab.scores.len())] {
        if len != 0 && len != count {
            return Err(wrong(format!("{count} tokens, but {len} {name}")));
        }
    }
    let ids = [("BOS", vocab.bos), ("EOS", vocab.eos), ("EOT", vocab.eot), ("unknown", vocab.unk)];
    for (name, id) in ids {
        if let Some(id) = id.filter(|&id| id as usize >= count) {
            return Err(wrong(format!("the {name} token is {id}, of a vocabulary of {count}")));
        }
    }
    Ok(())
}

/// Ids by text; of tokens that are written alike the first counts.
fn ids(vocab: &Vocab) -> Ids {
    let mut ids = Ids::default();
    for (id, text) in vocab.tokens.iter().enumerate() {
        ids.entry(text.clone()).or_insert(id as u32);
    }
    ids
}

fn byte_level(vocab: &Vocab) -> Result<(tokenizers::Tokenizer, bool)> {
    let pre = pre(vocab.pre.as_deref())?;
    let mut ids = ids(vocab);
    let merge = |line: &String| {
        let pair = line.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty());
        let (a, b) = pair.ok_or_else(|| wrong(format!("the merge {line:?} is not two tokens")))?;
        for text in [a, b, &format!("{a}{b}")] {
            if !ids.contains_key(text) {
                return Err(wrong(format!("the merge {line:?} needs a token {text:?}")));
            }
        }
        Ok((a.to_owned(), b.to_owned()))
    };
    let merges = vocab.merges.iter().map(merge).collect::<Result<Vec<_>>>()?;
    // A byte without a token still keeps its neighbours apart: it gets an id beyond the vocabulary.
    let mut beyond = vocab.tokens.len() as u32;
    for (byte, _) in byte_of_char() {
        ids.entry(byte.to_string()).or_insert_with(|| {
            beyond += 1;
            beyond - 1
        });
    }
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
    Ok((inner, pre.add_bos))
}

/// SentencePiece joins the neighbours whose token has the highest score: merges, ranked by it.
fn sentence_piece(vocab: &Vocab) -> Result<tokenizers::Tokenizer> {
    if vocab.scores.is_empty() {
        return Err(wrong("a SentencePiece vocabulary without scores"));
    }
    let ids = ids(vocab);
    let mut order: Vec<usize> = (0..vocab.tokens.len()).collect();
    order.sort_by(|&a, &b| vocab.scores[b].total_cmp(&vocab.scores[a]));
    let mut merges = Vec::new();
    for text in order.into_iter().map(|id| vocab.tokens[id].as_str()) {
        for (at, _) in text.char_indices().skip(1) {
            let (a, b) = text.split_at(at);
            if ids.contains_key(a) && ids.contains_key(b) {
                merges.push((a.to_owned(), b.to_owned()));
            }
        }
    }
    let mut bpe = BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(false);
    if let Some(unk) = vocab.unk {
        bpe = bpe.unk_token(vocab.tokens[unk as usize].clone());
    }
    let bpe = bpe.build().map_err(|e| wrong(e.to_string()))?;
    let space = SPACE.to_string();
    let visible = Replace::new(" ", space.clone()).map_err(|e| wrong(e.to_string()))?;
    let mut steps = vec![];
    if vocab.add_space_prefix.unwrap_or(true) {
        steps.push(NormalizerWrapper::Prepend(Prepend::new(space)));
    }
    steps.push(NormalizerWrapper::Replace(visible));
    let mut inner = tokenizers::Tokenizer::new(bpe);
    inner.with_normalizer(Some(Normalizers::new(steps))).map_err(|e| wrong(e.to_string()))?;
    Ok(inner)
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

/// The byte of a token like `<0x0A>`.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}
