//! The fields of a request, read one by one: what has another type than is wanted is named.
use super::problem::Problem;
use axum::http::StatusCode;
use serde_json::{Map, Value};

/// An object that was sent.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let wrong = |why: String| Problem::new(StatusCode::BAD_REQUEST, why);
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(wrong("the body: an object is wanted, {\"…\": …}".into())),
            Err(error) => Err(wrong(format!("the body is not JSON: {error}"))),
        }
    }

    /// A field that is there; null says nothing.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A field that is there, as something that it has to be.
    fn read<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || Problem::field(name, format!("{}; {wanted} is wanted", shown(value)));
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, Problem> {
        self.read(name, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// A whole number from 0 on.
    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.read(name, "a whole number from 0 on", Value::as_u64)
    }

    /// The same, or -1, which is none.
    pub(super) fn whole_or_all(&self, name: &str) -> Result<Option<u64>, Problem> {
        match self.get(name).and_then(Value::as_i64) {
            Some(-1) => Ok(None),
            _ => self.whole(name),
        }
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, Problem> {
        self.read(name, "a list", Value::as_array)
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, Problem> {
        let map = self.read(name, "an object", Value::as_object)?;
        Ok(map.map(|map| Self(map.clone())))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Ids of tokens, each below `vocab`.
    pub(super) fn ids(&self, name: &str, vocab: usize) -> Result<Option<Vec<u32>>, Problem> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let id = |value: &Value| {
            let id = value.as_u64().filter(|&id| id < vocab as u64);
            let wrong =
                || Problem::field(name, format!("{}; an id below {vocab} is wanted", shown(value)));
            id.map(|id| id as u32).ok_or_else(wrong)
        };
        list.iter().map(id).collect::<Result<_, _>>().map(Some)
    }
}

/// A value in a sentence.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
