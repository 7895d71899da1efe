//! A file that JavaScript reads for us: downloaded, kept, or dropped on a page.
use crate::errors::Thrown;
use brooklet::format::source::check_range;
use brooklet::format::{Gguf, Shards, Source};
use brooklet::{Error, Result};
use js_sys::Uint8Array;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `js/source.js` makes them.
    #[derive(Clone)]
    pub type JsFile;
    #[wasm_bindgen(method, getter)]
    fn name(this: &JsFile) -> String;
    #[wasm_bindgen(method, getter)]
    fn length(this: &JsFile) -> f64;
    #[wasm_bindgen(method, catch)]
    async fn read(this: &JsFile, start: f64, end: f64) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method)]
    fn release(this: &JsFile, end: f64);
    #[wasm_bindgen(method, catch)]
    async fn sibling(this: &JsFile, name: String) -> Result<JsValue, JsValue>;
}

/// What JavaScript threw, with its own code, while files were read.
#[derive(Clone, Default)]
pub(crate) struct Caught(Rc<RefCell<Option<JsValue>>>);

impl Caught {
    /// `error`, or what JavaScript threw to cause it.
    pub(crate) fn thrown(&self, error: Error) -> Thrown {
        self.0.take().map_or_else(|| error.into(), Thrown)
    }

    /// Notes it, and the error that stands for it meanwhile.
    fn note(&self, path: &str, thrown: JsValue) -> Error {
        self.0.replace(Some(thrown));
        failed(path, "could not be read")
    }
}

fn failed(path: &str, why: &str) -> Error {
    Error::Io { path: path.to_owned(), source: std::io::Error::other(why.to_owned()) }
}

/// The same as a [`Source`].
pub(crate) struct File {
    name: String,
    js: JsFile,
    caught: Caught,
}

impl File {
    fn new(js: JsFile, caught: Caught) -> Self {
        Self { name: js.name(), js, caught }
    }

    /// The model that the file is, or is a shard of. `caught`: where what its files throw is noted.
    pub(crate) async fn gather(js: JsFile, caught: &Caught) -> Result<(Shards<Self>, Gguf)> {
        let named = Self::new(js.clone(), caught.clone());
        let name = named.name.clone();
        Shards::gather(named, &name, async |name| {
            let file = js.sibling(name.to_owned()).await;
            let file = file.map_err(|thrown| caught.note(name, thrown))?;
            Ok(Self::new(file.unchecked_into(), caught.clone()))
        })
        .await
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
        let read = self.js.read(range.start as f64, range.end as f64).await;
        let read = read.map_err(|thrown| self.caught.note(&self.name, thrown))?;
        let bytes =
            read.dyn_into::<Uint8Array>().ok().filter(|bytes| bytes.length() as usize == length);
        let bytes = bytes.ok_or_else(|| {
            failed(&self.name, "fewer bytes came than were asked for; load it again")
        })?;
        Ok(Cow::Owned(bytes.to_vec()))
    }

    fn release(&self, end: u64) {
        self.js.release(end as f64);
    }
}
