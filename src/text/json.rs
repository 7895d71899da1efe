//! JSON as templates take it: with its keys in order.
use crate::{Error, Result};
use serde_json::{Map, Value};

/// A value of JSON, with its keys in order: messages, tools, settings.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Json(pub(crate) Value);

impl Json {
    /// Reads JSON. `what` is what errors call it.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        let value = serde_json::from_str(text);
        value.map(Self).map_err(|error| Error::Usage(format!("{what}: this is not JSON ({error})")))
    }

    /// Anything that can be written as JSON; null where it cannot.
    pub fn of(value: impl serde::Serialize) -> Self {
        Self(serde_json::to_value(value).unwrap_or_default())
    }

    /// As it is written.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        self.0.is_array()
    }

    /// What a map has under this name.
    pub fn field(&self, name: &str) -> Option<Self> {
        self.0.get(name).cloned().map(Self)
    }

    /// Messages with what the arguments of their calls say, where they are texts of JSON; none where none are.
    pub fn with_arguments(&self) -> Option<Self> {
        let mut any = false;
        let value = with_arguments(&self.0, &mut any);
        any.then_some(Self(value))
    }
}

fn with_arguments(value: &Value, any: &mut bool) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| with_arguments(item, any)).collect(),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| {
                let text = value.as_str().filter(|_| key == "arguments");
                let read: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
                let object = read.filter(Value::is_object);
                *any |= object.is_some();
                (key.clone(), object.unwrap_or_else(|| with_arguments(value, any)))
            });
            Value::Object(pairs.collect())
        }
        other => other.clone(),
    }
}

/// A value with each of its texts, but for the keys, replaced.
pub(super) fn mapped(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => change(text).into(),
        Value::Array(items) => items.iter().map(|item| mapped(item, change)).collect(),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| (key.clone(), mapped(value, change)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}
