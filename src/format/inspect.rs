//! A GGUF file told as text: what `brooklet inspect FILE` prints.
use std::fmt::{Display, Write};

use super::gguf::{Array, Gguf, TensorInfo, Value};
use super::value::shown;

/// How much of a string is shown, in characters.
const LONGEST_STRING: usize = 60;
/// How many elements of an array are shown.
const LONGEST_ARRAY: usize = 6;

/// Version, metadata, tensors, and totals by type. Long strings and arrays are shortened.
pub fn describe(gguf: &Gguf) -> String {
    let files = match gguf.shards.len() {
        1 => String::new(),
        files => format!(" in {files} files"),
    };
    let mut text = format!(
        "{}: GGUF version {}, {} metadata keys, {} tensors{files}\n",
        gguf.file(),
        gguf.version,
        gguf.metadata.len(),
        gguf.tensors.len()
    );
    let rows = gguf
        .metadata
        .iter()
        .map(|(key, value)| [shown(key, 80), type_text(value), value_text(value)]);
    section(&mut text, ["key", "type", "value"], rows.collect());
    let rows = gguf.tensors.iter().map(|tensor| {
        let size = if tensor.dtype().is_ok() { bytes_text(tensor.size) } else { "?".to_owned() };
        [
            shown(&tensor.name, 80),
            tensor.type_text(),
            dims_text(&tensor.dims),
            size,
            gguf.place(tensor.offset).1.to_string(),
        ]
    });
    section(&mut text, ["tensor", "type", "dims", "size", "offset"], rows.collect());
    section(&mut text, ["type", "tensors", "elements", "size"], totals(&gguf.tensors));
    text
}

/// A table with a heading; the last column is not padded. Nothing if there are no rows.
fn section<const N: usize>(text: &mut String, heading: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(|column| width(column).max(heading[column].len()));
    text.push('\n');
    for row in std::iter::once(&heading.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Tensors, elements and bytes of each type, the types in the order they first appear, then the sum.
fn totals(tensors: &[TensorInfo]) -> Vec<[String; 4]> {
    let mut sums: Vec<(String, usize, u128, u128)> = Vec::new();
    let mut all = ("total".to_owned(), 0, 0, 0);
    for tensor in tensors {
        let name = tensor.type_text();
        let index = sums.iter().position(|sum| sum.0 == name).unwrap_or_else(|| {
            sums.push((name, 0, 0, 0));
            sums.len() - 1
        });
        let elements: u128 = tensor.dims.iter().map(|&dim| u128::from(dim)).product();
        for sum in [&mut sums[index], &mut all] {
            sum.1 += 1;
            sum.2 += elements;
            sum.3 += u128::from(tensor.size);
        }
    }
    if !sums.is_empty() {
        sums.push(all);
    }
    let row = |(name, count, elements, bytes): (String, usize, u128, u128)| {
        let bytes = if bytes == 0 { "?".to_owned() } else { bytes_text(bytes as u64) };
        [name, count.to_string(), elements.to_string(), bytes]
    };
    sums.into_iter().map(row).collect()
}

fn type_text(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("{}[{}]", array.type_name(), array.len()),
        _ => value.type_name().to_owned(),
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::U8(n) => n.to_string(),
        Value::I8(n) => n.to_string(),
        Value::U16(n) => n.to_string(),
        Value::I16(n) => n.to_string(),
        Value::U32(n) => n.to_string(),
        Value::I32(n) => n.to_string(),
        Value::U64(n) => n.to_string(),
        Value::I64(n) => n.to_string(),
        Value::F32(x) => format!("{x:?}"),
        Value::F64(x) => format!("{x:?}"),
        Value::Bool(b) => b.to_string(),
        Value::String(s) => shown(s, LONGEST_STRING),
        Value::Array(array) => array_text(array),
    }
}

fn array_text(array: &Array) -> String {
    fn list<T, D: Display>(items: &[T], show: impl Fn(&T) -> D) -> String {
        let mut text: Vec<String> =
            items.iter().take(LONGEST_ARRAY).map(|item| show(item).to_string()).collect();
        if items.len() > LONGEST_ARRAY {
            text.push("…".to_owned());
        }
        format!("[{}]", text.join(", "))
    }
    match array {
        Array::U8(items) => list(items, |n| *n),
        Array::I8(items) => list(items, |n| *n),
        Array::U16(items) => list(items, |n| *n),
        Array::I16(items) => list(items, |n| *n),
        Array::U32(items) => list(items, |n| *n),
        Array::I32(items) => list(items, |n| *n),
        Array::U64(items) => list(items, |n| *n),
        Array::I64(items) => list(items, |n| *n),
        Array::F32(items) => list(items, |x| format!("{x:?}")),
        Array::F64(items) => list(items, |x| format!("{x:?}")),
        Array::Bool(items) => list(items, |b| *b),
        Array::String(items) => list(items, |s| format!("\"{}\"", shown(s, 16))),
        Array::Array(items) => {
            list(items, |inner| format!("{}[{}]", inner.type_name(), inner.len()))
        }
    }
}

/// `4096 x 32000`.
fn dims_text(dims: &[u64]) -> String {
    dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

/// `1.5 MiB`: three digits or so, and exact below 1 KiB.
fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut size, mut unit) = (bytes as f64 / 1024.0, 0);
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}
