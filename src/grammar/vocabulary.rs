//! The tokens of a model as a trie of bytes, which grammars are walked along.
use super::{Grammar, GrammarMatcher, sentence, wrong};
use crate::Result;
use crate::text::{Tokenizer, Word};
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use std::sync::Arc;

/// What stands before the name of a token that is no part of anybody's text. It is in no UTF-8.
const SPECIAL: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// The longest token in bytes, the most nodes and the most tokens that the trie's packed nodes have bits for.
const MOST_BYTES: usize = 1 << 10;
const MOST_NODES: usize = 1 << 22;
const MOST_TOKENS: usize = (1 << 24) - 1;

/// The vocabulary of a model as grammars need it: a trie of its tokens, made once and shared by every output.
pub struct GrammarVocabulary {
    factory: ParserFactory,
    ends: Arc<[u32]>,
}

impl GrammarVocabulary {
    /// Makes the trie, which takes a fraction of a second. An error where the model has no token that ends a text: no
    /// output would ever be complete.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let encoder = tokenizer.clone();
        let words = (0..tokenizer.len() as u32).map(|id| tokenizer.word(id));
        Self::of_words(words, tokenizer.eog(), move |text| encoder.encode_within(text).ok())
    }

    /// The same where the tokenizer is elsewhere: of what each token is, of those that end a text, and of what encodes a
    /// text that follows another.
    pub fn of_words<'a>(
        words: impl Iterator<Item = Word<'a>>,
        ends: &[u32],
        encode: impl Fn(&str) -> Option<Vec<u32>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let Some(&first) = ends.first() else {
            return Err(wrong(
                "the model has no token that ends a text, so an output could not end where its grammar does; take a \
                 model that names one (tokenizer.ggml.eos_token_id)",
            ));
        };
        let words: Vec<Vec<u8>> = words.map(bytes).collect();
        expect_room(&words)?;
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, first), &words);
        let trie = trie.with_eos_tokens(ends);
        let tokens: TokEnv = Arc::new(Tokens { trie, encode: Box::new(encode) });
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
            .map_err(|error| {
                wrong(format!("the vocabulary cannot be sorted: {}", sentence(error)))
            })?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory, ends: ends.into() })
    }

    /// What holds one output to a grammar, from its beginning.
    pub fn matcher(&self, grammar: &Grammar) -> Result<GrammarMatcher> {
        let parser = self.factory.create_parser(grammar.top.clone());
        let parser = parser.map_err(|error| grammar.refused(&sentence(error)))?;
        GrammarMatcher::new(parser, self.ends.clone())
    }
}

/// The bytes of a token in the trie; of one that no text has, its name behind a byte that is in no text.
fn bytes(word: Word) -> Vec<u8> {
    let bytes = match word {
        Word::Control(name) => [&[SPECIAL], name.as_bytes()].concat(),
        Word::Text([SPECIAL, ..]) => Vec::new(),
        Word::Text(bytes) => bytes.to_vec(),
    };
    // What is longer is never chosen under a grammar.
    if bytes.len() < MOST_BYTES { bytes } else { Vec::new() }
}

/// An error where the trie's nodes have too few bits.
fn expect_room(words: &[Vec<u8>]) -> Result<()> {
    let mut sorted: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let beyond = |pair: &[&[u8]]| {
        let shared = pair[0].iter().zip(pair[1]).take_while(|(a, b)| a == b).count();
        // Tokens of the same bytes have nodes of their own.
        (pair[1].len() - shared).max(1)
    };
    let nodes = 1 + sorted.first().map_or(0, |word| word.len());
    let nodes = nodes + sorted.windows(2).map(beyond).sum::<usize>();
    match nodes < MOST_NODES && words.len() < MOST_TOKENS {
        true => Ok(()),
        false => Err(wrong(format!(
            "a vocabulary of {} tokens with {nodes} different beginnings; grammars work with up to {MOST_TOKENS} and \
             {MOST_NODES}",
            words.len()
        ))),
    }
}

/// What encodes a text that follows another; nothing where it cannot.
type Encode = dyn Fn(&str) -> Option<Vec<u32>> + Send + Sync;

/// The vocabulary as `llguidance` asks for it.
struct Tokens {
    trie: TokTrie,
    encode: Box<Encode>,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The ids that the model has learnt such a text by, in the middle of another.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let own = |text: &str| {
            let says = |ids: &Vec<u32>| {
                let known = ids.iter().all(|&id| (id as usize) < self.trie.vocab_size());
                known && ids.iter().flat_map(|&id| self.trie.token(id)).eq(text.as_bytes())
            };
            let ids = (self.encode)(text).filter(says);
            ids.unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        };
        self.trie.tokenize_with_greedy_fallback(bytes, own)
    }
}
