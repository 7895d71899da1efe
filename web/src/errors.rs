//! Rust's errors as JavaScript's: a code, and a message with settings named as JavaScript's options.
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
        let object = js_sys::Error::new(&error.worded(option));
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
        Error::OutOfMemory { .. } | Error::NoRoom { .. } => "out-of-memory",
        Error::Format { .. } | Error::Tokenizer(_) | Error::Template(_) | Error::NotNumbers(_) => {
            "bad-model"
        }
        Error::Unsupported(_) => "unsupported",
        Error::Usage(_) | Error::Setting { .. } | Error::Grammar(_) => "bad-option",
        Error::Io { .. } | Error::Fetch { .. } => "network",
        _ => "internal",
    }
}

/// A setting of the library as an option is called here: `top_k` is `topK`.
fn option(setting: &str) -> String {
    if setting == "chat_template" {
        return "template".to_owned();
    }
    let mut words = setting.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, others) = word.split_at(word.len().min(1));
        name + &initial.to_uppercase() + others
    })
}

/// JSON from our own JavaScript, which has checked what a user can get wrong.
pub(crate) fn parsed<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Thrown> {
    serde_json::from_str(json).map_err(|e| Error::Usage(format!("{what}: {e}")).into())
}

#[cfg(test)]
mod tests {
    use super::{code, option};
    use brooklet::Error;

    #[test]
    fn settings_are_spelt_as_in_javascript() {
        for (setting, expected) in [
            ("window", "window"),
            ("top_k", "topK"),
            ("penalty_last_n", "penaltyLastN"),
            ("chat_template", "template"),
        ] {
            assert_eq!(option(setting), expected);
        }
        let works = "0 to 1 works".to_owned();
        let wrong = Error::Setting { which: "min_p", found: "2".into(), works };
        assert_eq!(
            (code(&wrong), &wrong.worded(option)[..]),
            ("bad-option", "minP 2: 0 to 1 works")
        );
        let tries = vec![("window", "9".to_owned()), ("kv", "f16".to_owned())];
        let large = Error::NoRoom { what: "a cache".into(), needed: 7, tries };
        let message = "out of GPU memory: a cache needs 7 bytes; try window 9 or kv f16";
        assert_eq!((code(&large), &large.worded(option)[..]), ("out-of-memory", message));
    }
}
