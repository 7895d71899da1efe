//! Rust's errors as JavaScript's: a code, and a message with settings named as JavaScript's options.
use brooklet::Error;
use brooklet::wire::{code, option};
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;

/// An error on its way to JavaScript: an `Error` object with a `code`.
pub struct Thrown(pub JsValue);

impl From<Thrown> for JsValue {
    fn from(thrown: Thrown) -> Self {
        thrown.0
    }
}

impl From<Error> for Thrown {
    fn from(error: Error) -> Self {
        let object = js_sys::Error::new(&error.worded(option));
        // An object that was made just now takes a property.
        let _ = js_sys::Reflect::set(&object, &"code".into(), &code(&error).into());
        Self(object.into())
    }
}

/// JSON from our own JavaScript, which has checked what a user can get wrong.
pub(crate) fn parsed<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Thrown> {
    serde_json::from_str(json).map_err(|e| Error::Usage(format!("{what}: {e}")).into())
}
