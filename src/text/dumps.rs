//! JSON as Python's `json.dumps` writes it, for the templates' `tojson`.
use super::marks::MARK;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;

/// How it is written.
pub(super) struct Dumps {
    /// Everything beyond ASCII is escaped.
    pub(super) ascii: bool,
    /// Each item on a line of its own, indented so for each level.
    pub(super) indent: Option<String>,
    /// Between items, and between a key and its value.
    pub(super) separators: [String; 2],
    /// Keys in the order of their texts.
    pub(super) sorted: bool,
}

/// Values nested deeper are refused.
const DEEPEST: usize = 128;

/// The JSON of a value, of which every byte is paid for.
pub(super) fn dumps(state: &State, value: &Value, form: &Dumps) -> Result<String, Error> {
    let mut dump = Dump { state, form, out: String::new(), paid: 0 };
    dump.value(value, 0)?;
    Ok(dump.out)
}

struct Dump<'a> {
    state: &'a State<'a, 'a>,
    form: &'a Dumps,
    out: String,
    paid: usize,
}

impl Dump<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                "tojson of a value nested too deep",
            ));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => {
                let text = format!("tojson cannot write what is {kind}");
                return Err(Error::new(ErrorKind::BadSerialization, text));
            }
        }
        // One unit for 64 bytes, as the engine counts.
        let units = (self.out.len() - self.paid) / 64;
        self.paid += units * 64;
        self.state.consume_fuel(1 + units as u64)
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut any = false;
        for item in value.try_iter()? {
            self.separate(any, depth + 1);
            self.value(&item, depth + 1)?;
            any = true;
        }
        self.close(any, depth, ']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.form.sorted {
            keys.sort_by_key(ToString::to_string);
        }
        let any = !keys.is_empty();
        for (at, key) in keys.into_iter().enumerate() {
            self.separate(at > 0, depth + 1);
            match key.kind() {
                ValueKind::None => self.string("null"),
                ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
                _ => self.string(&key.to_string()),
            }
            self.out.push_str(&self.form.separators[1]);
            self.value(&value.get_item(&key)?, depth + 1)?;
        }
        self.close(any, depth, '}');
        Ok(())
    }

    fn separate(&mut self, any: bool, depth: usize) {
        if any {
            self.out.push_str(&self.form.separators[0]);
        }
        self.line(depth);
    }

    fn close(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.form.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn number(&mut self, value: &Value) {
        let whole = value.as_i64().filter(|_| value.is_integer());
        match (whole, f64::try_from(value.clone())) {
            (Some(whole), _) => self.out.push_str(&whole.to_string()),
            (None, Ok(number)) if !value.is_integer() => self.out.push_str(&float(number)),
            // Beyond 64 bits.
            _ => self.out.push_str(&value.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                // Not of the text: it has to stay what it is.
                MARK => self.out.push(c),
                c if c < ' ' || self.form.ascii && c > '~' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing into a String does not fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A number as Python has it: the exponent with its sign and two digits at least.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    } else if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{}e{sign}{exponent:0>2}", digits.strip_suffix(".0").unwrap_or(digits))
        }
    }
}
