//! What is loaded, where, and how large, for JavaScript: `Info` of `js/index.d.ts`.
use crate::Core;
use crate::errors::Thrown;
use brooklet::wire;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
impl Core {
    /// Model, adapter, kernels, tier, cache and bytes, as JSON.
    pub fn info(&self) -> Result<String, Thrown> {
        let loaded = &self.loaded;
        let template = loaded.templates.find(None).is_ok();
        Ok(wire::info(self.session()?, &loaded.info, &loaded.sampling, template).to_string())
    }
}
