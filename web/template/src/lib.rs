//! The engine of chat templates for JavaScript.
use brooklet::Error;
use brooklet::text::{Json, Template as Inner};
use wasm_bindgen::prelude::*;

/// A panic is a defect of this package. It reaches JavaScript as an exception with its message, not as a bare trap.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
}

/// A model's chat template, read.
#[wasm_bindgen]
pub struct Template(Inner);

#[wasm_bindgen]
impl Template {
    /// Reads a template, for a model of which BOS and EOS are written so. Throws a sentence.
    #[wasm_bindgen(constructor)]
    pub fn new(text: &str, bos: &str, eos: &str) -> Result<Self, JsValue> {
        Inner::new(text, bos, eos).map(Self).map_err(told)
    }

    /// The text that variables make; they are JSON. Throws a sentence.
    pub fn render(&self, variables: &str) -> Result<String, JsValue> {
        let variables = Json::parse("the template's variables", variables).map_err(told)?;
        self.0.render_variables(&variables).map_err(told)
    }
}

/// What is wrong with the template, without the words that say it is one: whoever called knows.
fn told(error: Error) -> JsValue {
    match error {
        Error::Template(text) => text.into(),
        other => other.to_string().into(),
    }
}
