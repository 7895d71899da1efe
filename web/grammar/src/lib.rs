//! The engine of grammars for JavaScript. What the tokens are it is told once, by the module that has the tokenizer.
use brooklet::Error;
use brooklet::grammar::{Grammar, GrammarMatcher, GrammarVocabulary};
use brooklet::session::Constraint;
use brooklet::text::Word;
use js_sys::{Function, Uint32Array};
use wasm_bindgen::prelude::*;

/// A panic is a defect of this package. It reaches JavaScript as an exception with its message, not as a bare trap.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
}

/// In the length of a token: that its bytes are a name, and no part of any text.
const CONTROL: u32 = 1 << 31;

/// The vocabulary of a model, for all outputs.
#[wasm_bindgen]
pub struct Grammars {
    vocabulary: GrammarVocabulary,
    /// Words of a mask: a bit for each token.
    words: usize,
}

#[wasm_bindgen]
impl Grammars {
    /// Of tokens with these bytes, one behind another, and lengths, of which the highest bit says that it is a control
    /// token's name; of the ids that end a text; and of `encode(text)`, which gives the ids of a text that follows
    /// another. Throws a sentence.
    #[wasm_bindgen(constructor)]
    pub fn new(
        bytes: &[u8],
        lengths: &[u32],
        ends: &[u32],
        encode: Function,
    ) -> Result<Self, JsValue> {
        let mut rest = bytes;
        let words = lengths.iter().map(|&length| {
            let (word, after) = rest.split_at_checked((length & !CONTROL) as usize)?;
            rest = after;
            match length & CONTROL {
                0 => Some(Word::Text(word)),
                _ => std::str::from_utf8(word).ok().map(Word::Control),
            }
        });
        let words: Option<Vec<_>> = words.collect();
        let words = words.ok_or("the tokens are not those of a tokenizer")?;
        let encode = move |text: &str| {
            let ids = encode.call1(&JsValue::NULL, &text.into()).ok()?;
            Some(ids.dyn_into::<Uint32Array>().ok()?.to_vec())
        };
        let vocabulary = GrammarVocabulary::of_words(words.into_iter(), ends, encode);
        let words = lengths.len().div_ceil(32);
        Ok(Self { vocabulary: vocabulary.map_err(told)?, words })
    }

    /// What holds one output to a grammar from its beginning: of `kind` `schema`, `regex` or `grammar`, written so.
    /// Throws a sentence.
    pub fn matcher(&self, kind: &str, source: &str) -> Result<Matcher, JsValue> {
        let grammar = match kind {
            "schema" => Grammar::json_schema(source),
            "regex" => Grammar::regex(source),
            _ => Grammar::lark(source),
        };
        let matcher = grammar.and_then(|grammar| self.vocabulary.matcher(&grammar));
        Ok(Matcher { matcher: matcher.map_err(told)?, words: self.words })
    }
}

/// Where one output stands in its grammar.
#[wasm_bindgen]
pub struct Matcher {
    matcher: GrammarMatcher,
    words: usize,
}

#[wasm_bindgen]
impl Matcher {
    /// The ids that may not come next, a bit each, the lowest first. Throws a sentence.
    pub fn banned(&mut self) -> Result<Vec<u32>, JsValue> {
        let mut banned = vec![0; self.words];
        self.matcher.ban(&mut banned).map_err(told)?;
        Ok(banned)
    }

    /// Takes the token that came. Throws a sentence.
    pub fn accept(&mut self, token: u32) -> Result<(), JsValue> {
        self.matcher.accept(token).map_err(told)
    }

    /// Takes back the last so many tokens. Throws a sentence.
    #[wasm_bindgen(js_name = rollBack)]
    pub fn roll_back(&mut self, tokens: usize) -> Result<(), JsValue> {
        self.matcher.roll_back(tokens).map_err(told)
    }

    /// The tokens that have to come next.
    pub fn forced(&mut self) -> Vec<u32> {
        self.matcher.forced()
    }
}

fn told(error: Error) -> JsValue {
    error.to_string().into()
}
