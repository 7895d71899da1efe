//! The tokens of a model as a trie of bytes, which grammars are walked along.
use super::{Grammar, GrammarMatcher, sentence, wrong};
use crate::Result;
use crate::text::Tokenizer;
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
        let ends: Arc<[u32]> = tokenizer.eog().into();
        let Some(&first) = ends.first() else {
            return Err(wrong(
                "the model has no token that ends a text, so an output could not end where its grammar does; take a \
                 model that names one (tokenizer.ggml.eos_token_id)",
            ));
        };
        let words = words(&tokenizer);
        expect_room(&words)?;
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, first), &words);
        let trie = trie.with_eos_tokens(&ends);
        let tokens: TokEnv = Arc::new(Tokens { trie, tokenizer });
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
            .map_err(|error| {
                wrong(format!("the vocabulary cannot be sorted: {}", sentence(error)))
            })?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory, ends })
    }

    /// What holds one output to a grammar, from its beginning.
    pub fn matcher(&self, grammar: &Grammar) -> Result<GrammarMatcher> {
        let parser = self.factory.create_parser(grammar.top.clone());
        let parser = parser.map_err(|error| grammar.refused(&sentence(error)))?;
        GrammarMatcher::new(parser, self.ends.clone())
    }
}

/// The bytes of each token; of one that no text has, its name behind a byte that is in no text.
fn words(tokenizer: &Tokenizer) -> Vec<Vec<u8>> {
    let word = |id: u32| {
        if tokenizer.is_control(id) || tokenizer.eog().contains(&id) {
            let name = tokenizer.piece(id).as_bytes();
            return [&[SPECIAL], name].concat();
        }
        match tokenizer.bytes(id) {
            [SPECIAL, ..] => Vec::new(),
            bytes => bytes.to_vec(),
        }
    };
    // What is longer is never chosen under a grammar.
    let fits = |word: Vec<u8>| if word.len() < MOST_BYTES { word } else { Vec::new() };
    (0..tokenizer.len() as u32).map(|id| fits(word(id))).collect()
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

/// The vocabulary as `llguidance` asks for it.
struct Tokens {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The ids that the model has learnt such a text by, in the middle of another.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let own = |text: &str| {
            let says = |ids: &Vec<u32>| {
                let said = ids.iter().flat_map(|&id| self.tokenizer.bytes(id));
                said.eq(text.as_bytes())
            };
            let ids = self.tokenizer.encode_within(text).ok();
            ids.filter(says).unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        };
        self.trie.tokenize_with_greedy_fallback(bytes, own)
    }
}
