//! Rust's errors as JavaScript's: a code, and a message without the command line's spelling of options.
use brooklet::Error;
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
        let object = js_sys::Error::new(&options_as_here(&error.to_string()));
        // An object that was made just now takes a property.
        let _ = js_sys::Reflect::set(&object, &"code".into(), &code(&error).into());
        Self(object.into())
    }
}

/// `ErrorCode` of `js/index.d.ts`.
fn code(error: &Error) -> &'static str {
    match error {
        Error::NoAdapter(_) | Error::NoDevice(_) => "no-adapter",
        Error::DeviceLost(_) => "device-lost",
        Error::OutOfMemory { .. } => "out-of-memory",
        Error::Format { .. } | Error::Tokenizer(_) => "bad-model",
        Error::Unsupported(_) => "unsupported",
        Error::Usage(_) => "bad-option",
        Error::Io { .. } => "network",
        _ => "internal",
    }
}

/// `--top-k` is `topK` here.
fn options_as_here(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some(at) = rest.find("--") {
        let (before, option) = rest.split_at(at);
        let end = option[2..]
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .map_or(option.len(), |n| n + 2);
        let (name, after) = option.split_at(end);
        out.push_str(before);
        if end == 2 {
            out.push_str(name);
        }
        for (i, word) in name[2..].split('-').enumerate() {
            let word = if word == "temp" { "temperature" } else { word };
            let (first, others) = word.split_at(word.len().min(1));
            out.push_str(&if i == 0 { first.to_owned() } else { first.to_uppercase() });
            out.push_str(others);
        }
        rest = after;
    }
    out + rest
}

/// JSON from our own JavaScript, which has checked what a user can get wrong.
pub(crate) fn parsed<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Thrown> {
    serde_json::from_str(json).map_err(|e| Error::Usage(format!("{what}: {e}")).into())
}

#[cfg(test)]
mod tests {
    use super::options_as_here;

    #[test]
    fn options_are_spelt_as_in_javascript() {
        for (message, expected) in [
            ("--window 0: a token", "window 0: a token"),
            ("try --window 9 or --kv f16", "try window 9 or kv f16"),
            ("--top-k 2, --repeat-last-n: --temp", "topK 2, repeatLastN: temperature"),
            ("no option -- at all", "no option -- at all"),
            ("é--min-p", "éminP"),
        ] {
            assert_eq!(options_as_here(message), expected);
        }
    }
}
