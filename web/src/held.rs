//! Outputs that are held to rules which another module knows: `js/grammar.js` loads it.
use brooklet::session::Constraint;
use brooklet::text::{Tokenizer, Word};
use brooklet::{Error, Result};
use js_sys::Uint32Array;
use std::sync::Arc;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `Matcher` of web/grammar.
    pub type JsMatcher;

    #[wasm_bindgen(method, catch)]
    fn banned(this: &JsMatcher) -> Result<Uint32Array, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn accept(this: &JsMatcher, token: u32) -> Result<(), JsValue>;

    #[wasm_bindgen(method, catch, js_name = rollBack)]
    fn roll_back(this: &JsMatcher, tokens: usize) -> Result<(), JsValue>;

    #[wasm_bindgen(method, catch)]
    fn forced(this: &JsMatcher) -> Result<Vec<u32>, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn free(this: &JsMatcher) -> Result<(), JsValue>;
}

/// The rules of one output, until it is over.
pub(crate) struct Held(JsMatcher);

impl Held {
    pub(crate) fn new(matcher: JsMatcher) -> Box<Self> {
        Box::new(Self(matcher))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One that has failed in the middle of something cannot be freed.
        let _ = self.0.free();
    }
}

impl Constraint for Held {
    fn ban(&mut self, banned: &mut [u32]) -> Result<()> {
        let mask = self.0.banned().map_err(failed)?.to_vec();
        for (i, word) in banned.iter_mut().enumerate() {
            *word |= mask.get(i).copied().unwrap_or(u32::MAX);
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.0.accept(token).map_err(failed)
    }

    fn roll_back(&mut self, tokens: usize) -> Result<()> {
        self.0.roll_back(tokens).map_err(failed)
    }

    fn forced(&mut self) -> Vec<u32> {
        // Without them the output is the same, a token after the other; what is wrong is said of the next mask.
        self.0.forced().unwrap_or_default()
    }
}

/// A sentence is the grammar's; anything else has gone wrong in its engine.
fn failed(thrown: JsValue) -> Error {
    Error::Grammar(thrown.as_string().unwrap_or_else(|| {
        "the engine of grammars failed in the middle of this output; take simpler rules".to_owned()
    }))
}

/// In the length of a token: that its bytes are a name, and no part of any text. As in web/grammar.
const CONTROL: u32 = 1 << 31;

/// The tokens of a model, for another module.
#[wasm_bindgen]
pub struct Tokens(pub(crate) Arc<Tokenizer>);

#[wasm_bindgen]
impl Tokens {
    fn words(&self) -> impl Iterator<Item = (&[u8], u32)> {
        (0..self.0.len() as u32).map(|id| match self.0.word(id) {
            Word::Text(bytes) => (bytes, 0),
            Word::Control(name) => (name.as_bytes(), CONTROL),
        })
    }

    /// Their bytes, one behind another.
    pub fn bytes(&self) -> Vec<u8> {
        self.words().flat_map(|(bytes, _)| bytes).copied().collect()
    }

    /// How many bytes each has; the highest bit says that they are a control token's name.
    pub fn lengths(&self) -> Vec<u32> {
        self.words().map(|(bytes, control)| bytes.len() as u32 | control).collect()
    }

    /// The ids that end a text.
    pub fn ends(&self) -> Vec<u32> {
        self.0.eog().to_vec()
    }

    /// The ids of a text that follows another; none where there are no such ids.
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        self.0.encode_within(text).ok()
    }
}
