//! A file that JavaScript reads for us: downloaded, kept, or dropped on a page.
use crate::errors::Thrown;
use brooklet::format::Source;
use brooklet::format::source::check_range;
use brooklet::{Error, Result};
use js_sys::Uint8Array;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `js/source.js` makes them.
    pub type JsFile;
    #[wasm_bindgen(method, getter)]
    fn name(this: &JsFile) -> String;
    #[wasm_bindgen(method, getter)]
    fn length(this: &JsFile) -> f64;
    #[wasm_bindgen(method, catch)]
    async fn read(this: &JsFile, start: f64, end: f64) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method)]
    fn release(this: &JsFile, end: f64);
}

/// The same as a [`Source`].
pub(crate) struct File {
    name: String,
    js: JsFile,
    /// What JavaScript threw, with its own code.
    thrown: RefCell<Option<JsValue>>,
}

impl File {
    pub(crate) fn new(js: JsFile) -> Self {
        Self { name: js.name(), js, thrown: RefCell::default() }
    }

    /// `error`, or what JavaScript threw to cause it.
    pub(crate) fn thrown(&self, error: Error) -> Thrown {
        self.thrown.take().map_or_else(|| error.into(), Thrown)
    }
}

impl Source for File {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.js.length() as u64
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let length = check_range(self, &range)?;
        let failed = |why: &str| Error::Io {
            path: self.name.clone(),
            source: std::io::Error::other(why.to_owned()),
        };
        let read = self.js.read(range.start as f64, range.end as f64).await.map_err(|thrown| {
            self.thrown.replace(Some(thrown));
            failed("could not be read")
        })?;
        let bytes =
            read.dyn_into::<Uint8Array>().ok().filter(|bytes| bytes.length() as usize == length);
        let bytes =
            bytes.ok_or_else(|| failed("fewer bytes came than were asked for; load it again"))?;
        Ok(Cow::Owned(bytes.to_vec()))
    }

    fn release(&self, end: u64) {
        self.js.release(end as f64);
    }
}
