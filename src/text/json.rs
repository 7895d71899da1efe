//! JSON as templates take it: with its keys in order.
use crate::{Error, Result};
use minijinja::Value;
use minijinja::value::{Serde, ValueKind};

/// A value of JSON, with its keys in order: messages, tools, settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Json(pub(crate) Value);

impl Json {
    /// Reads JSON. `what` is what errors call it.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        let value = serde_json::from_str(text);
        value.map(Self).map_err(|error| Error::Usage(format!("{what}: this is not JSON ({error})")))
    }

    /// Anything that can be written as JSON.
    pub fn of(value: impl serde::Serialize) -> Self {
        Self(Value::from(Serde(value)))
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        self.0.kind() == ValueKind::Seq
    }

    /// What a map has under this name.
    pub fn field(&self, name: &str) -> Option<Self> {
        let map = self.0.kind() == ValueKind::Map;
        let value = self.0.get_attr(name).ok().filter(|_| map)?;
        (!value.is_undefined()).then_some(Self(value))
    }

    /// Messages with what the arguments of their calls say, where they are texts of JSON; none where none are.
    pub fn with_arguments(&self) -> Option<Self> {
        let mut any = false;
        let value = with_arguments(&self.0, &mut any);
        any.then_some(Self(value))
    }
}

fn with_arguments(value: &Value, any: &mut bool) -> Value {
    match (value.kind(), value.try_iter()) {
        (ValueKind::Seq, Ok(items)) => items.map(|item| with_arguments(&item, any)).collect(),
        (ValueKind::Map, Ok(keys)) => {
            let pairs = keys.map(|key| {
                let of_key = value.get_item(&key).unwrap_or_default();
                let text = of_key.as_str().filter(|_| key.as_str() == Some("arguments"));
                let read: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
                let object = read.filter(|read| read.kind() == ValueKind::Map);
                *any |= object.is_some();
                (key, object.unwrap_or_else(|| with_arguments(&of_key, any)))
            });
            Value::from_pairs(pairs.collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}

/// A value with each of its texts, but for the keys, replaced.
pub(super) fn mapped(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match (value.kind(), value.as_str(), value.try_iter()) {
        (ValueKind::String, Some(text), _) => Value::from(change(text)),
        (ValueKind::Seq, _, Ok(items)) => items.map(|item| mapped(&item, change)).collect(),
        (ValueKind::Map, _, Ok(keys)) => {
            let pair = |key: Value| {
                let value = value.get_item(&key).unwrap_or_default();
                (key, mapped(&value, change))
            };
            Value::from_pairs(keys.map(pair).collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}

/// Bytes of all texts in a value, and one for each part.
pub(super) fn size(value: &Value) -> u64 {
    let own = value.as_str().map_or(1, |text| text.len() as u64 + 1);
    let map = value.kind() == ValueKind::Map;
    let parts = value.try_iter().ok().filter(|_| map || value.kind() == ValueKind::Seq);
    let part = |key: Value| match map {
        true => size(&key) + size(&value.get_item(&key).unwrap_or_default()),
        false => size(&key),
    };
    own + parts.into_iter().flatten().map(part).sum::<u64>()
}
