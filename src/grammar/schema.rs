//! What of a JSON schema is supported, and where something is not.
use super::{Grammar, wrong};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::time::Duration;
use web_time::Instant;

/// JSON is written in one way, a space behind each comma and colon, as models have mostly seen it on one line. Most of
/// what is between values is then forced, and fed together; and a small model that may write any amount of white space
/// may never write anything else again.
fn layout() -> Value {
    json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " })
}

/// Dates and times as they can be: 29 February is of leap years alone, which the compiler's own formats leave out of
/// account, as they do that leap seconds are of 23:59. Years have four digits without a zero before them, fractions of
/// seconds nine at most, and letters are capitals.
const DATE: &str = "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|\
    (?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|\
    (?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)";
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?\
    (?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

/// Keywords whose value is a schema, several of them, or several by name.
const ONE: [&str; 3] = ["items", "additionalItems", "additionalProperties"];
const LISTS: [&str; 5] = ["prefixItems", "items", "anyOf", "oneOf", "allOf"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// How long schemas are tried until the one is found that is wrong.
const SEARCH: Duration = Duration::from_millis(300);
/// Deeper ones are refused, before anything that calls itself walks along them.
const DEPTH: usize = 100;

/// Makes a schema what the compiler takes.
pub(super) fn prepare(schema: &mut Value) -> Result<()> {
    expect_depth(schema)?;
    tighten(schema);
    match schema {
        // Options of the compiler are not the schema's to set.
        Value::Object(map) => {
            map.insert("x-guidance".into(), layout());
            Ok(())
        }
        Value::Bool(true) => {
            *schema = json!({ "x-guidance": layout() });
            Ok(())
        }
        other => Err(wrong(format!(
            "a JSON schema is an object, as {{\"type\": \"object\"}} is, and this is {}",
            kind(other)
        ))),
    }
}

/// Puts patterns in the place of formats that need more than the compiler's own.
fn tighten(schema: &mut Value) {
    if let Value::Object(map) = schema {
        let pattern = match map.get("format").and_then(Value::as_str) {
            Some("date") => Some(format!("^{DATE}$")),
            Some("time") => Some(format!("^{TIME}$")),
            Some("date-time") => Some(format!("^{DATE}T{TIME}$")),
            _ => None,
        };
        if let Some(pattern) = pattern {
            map.shift_remove("format");
            if let Some(own) = map.insert("pattern".into(), pattern.into())
                && let Value::Array(all) = map.entry("allOf").or_insert_with(|| json!([]))
            {
                all.push(json!({ "pattern": own }));
            }
        }
    }
    schemas_mut(schema).into_iter().for_each(tighten);
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "false, which allows nothing",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn expect_depth(schema: &Value) -> Result<()> {
    let mut level = vec![schema];
    for _ in 0..DEPTH {
        level = level.into_iter().flat_map(inside).collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(wrong(format!("the JSON schema is nested more than {DEPTH} deep; use $defs and $ref")))
}

fn inside(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// The same error with the JSON pointer of the innermost schema that it is about.
pub(super) fn located(schema: &Value, error: Error) -> Error {
    let (message, mut pointer, mut at) = (error.to_string(), String::new(), schema);
    let Some(root) = schema.as_object() else { return error };
    let start = Instant::now();
    'deeper: loop {
        for (name, part) in schemas(at) {
            if start.elapsed() > SEARCH {
                return error;
            }
            let alone = alone(root, part);
            if alone.checked().err().is_some_and(|found| found.to_string() == message) {
                pointer += &name;
                at = part;
                continue 'deeper;
            }
        }
        break;
    }
    let Error::Grammar(text) = error else { return error };
    let place = if pointer.is_empty() { "at its root".to_owned() } else { format!("at {pointer}") };
    wrong(text.replacen("cannot be used:", &format!("cannot be used, {place}:"), 1))
}

/// A part of a schema by itself, with the definitions that it may refer to.
fn alone(root: &Map<String, Value>, part: &Value) -> Grammar {
    let Value::Object(part) = part else { return Grammar::of_schema(part.clone()) };
    let mut part = part.clone();
    for name in ["$schema", "$defs", "definitions", "x-guidance"] {
        if let (Some(value), false) = (root.get(name), part.contains_key(name)) {
            part.insert(name.to_owned(), value.clone());
        }
    }
    Grammar::of_schema(part.into())
}

/// The schemas directly inside of one.
fn schemas_mut(schema: &mut Value) -> Vec<&mut Value> {
    let Value::Object(map) = schema else { return Vec::new() };
    let parts = map.iter_mut().flat_map(|(key, value)| -> Vec<&mut Value> {
        let one = ONE.contains(&key.as_str()) && !value.is_array();
        match value {
            value if one => vec![value],
            Value::Object(named) if NAMED.contains(&key.as_str()) => named.values_mut().collect(),
            Value::Array(list) if LISTS.contains(&key.as_str()) => list.iter_mut().collect(),
            _ => Vec::new(),
        }
    });
    parts.collect()
}

/// The schemas directly inside of one, each with what its pointer goes on with.
fn schemas(schema: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    let Value::Object(map) = schema else { return found };
    for (key, value) in map {
        match value {
            Value::Object(named) if NAMED.contains(&key.as_str()) => {
                let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
                found.extend(named.iter().map(|(n, v)| (format!("/{key}/{}", escaped(n)), v)));
            }
            Value::Array(list) if LISTS.contains(&key.as_str()) => {
                found.extend(list.iter().enumerate().map(|(i, v)| (format!("/{key}/{i}"), v)));
            }
            value if ONE.contains(&key.as_str()) => found.push((format!("/{key}"), value)),
            _ => {}
        }
    }
    found
}
