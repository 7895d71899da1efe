//! A reader that goes forward through a prefix of a file, and holds every count and length to what is left
//! before anything is allocated for it.
use super::value::{Array, Value, shown};
use crate::Error;
use std::borrow::Cow;

/// Why parsing ended early.
pub(super) enum Stop {
    /// The head goes on after the prefix, which may be extended: the file goes on too.
    ReadMore,
    /// The file is at fault.
    Failed(Error),
}

pub(super) type Parsed<T> = Result<T, Stop>;

/// Arrays of arrays of arrays are deeper than any known file.
const DEEPEST_ARRAY: u32 = 3;
/// Lists start with room for so many and grow as elements turn up, so that a promise alone takes no memory.
const FIRST_ROOM: u64 = 64;

/// An empty list with room for the first of `count`.
pub(super) fn list<T>(count: u64) -> Vec<T> {
    Vec::with_capacity(count.min(FIRST_ROOM) as usize)
}

/// Reads forward through the prefix.
pub(super) struct Cursor<'a> {
    pub(super) file: &'a str,
    pub(super) bytes: &'a [u8],
    /// The length of the whole file.
    pub(super) len: u64,
    pub(super) at: u64,
    /// The strings of the value read last that are not UTF-8: the index of each in its array, and its bytes.
    pub(super) raw: Vec<(usize, Box<[u8]>)>,
}

impl<'a> Cursor<'a> {
    /// A reader of `bytes`, the first of a file of `len`.
    pub(super) fn new(file: &'a str, bytes: &'a [u8], len: u64) -> Self {
        Self { file, bytes, len, at: 0, raw: Vec::new() }
    }

    pub(super) fn fault(&self, offset: u64, detail: String) -> Stop {
        Stop::Failed(Error::Format { file: self.file.to_owned(), offset, detail })
    }

    pub(super) fn unsupported(&self, detail: &str) -> Stop {
        Stop::Failed(Error::Unsupported(format!("{}: {detail}", self.file)))
    }

    /// `count` things of at least `each` bytes are to follow: is there room for them?
    pub(super) fn promise(
        &self,
        count: u64,
        each: u64,
        what: impl FnOnce() -> String,
    ) -> Parsed<()> {
        let (need, left) = (count.saturating_mul(each), self.len - self.at);
        if need > left {
            let what = what();
            let detail = format!(
                "the file is truncated: {what} should follow, at least {need} bytes, but it ends after {left} more"
            );
            return Err(self.fault(self.at, detail));
        }
        if need > self.bytes.len() as u64 - self.at { Err(Stop::ReadMore) } else { Ok(()) }
    }

    pub(super) fn take(&mut self, count: u64, what: &str) -> Parsed<&'a [u8]> {
        self.promise(count, 1, || what.to_owned())?;
        let start = self.at as usize; // it lies inside `bytes`, and so does the end
        self.at += count;
        Ok(&self.bytes[start..self.at as usize])
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn string(&mut self, what: &str) -> Parsed<&'a [u8]> {
        let length = self.u64(&format!("the length of {what}"))?;
        self.take(length, &format!("{what} of {length} bytes"))
    }

    /// What things are called by: it must be text.
    pub(super) fn name(&mut self, what: &str) -> Parsed<String> {
        let bytes = self.string(what)?;
        let at = self.at - bytes.len() as u64;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => {
                Err(self.fault(at + e.valid_up_to() as u64, format!("{what} is not valid UTF-8")))
            }
        }
    }

    /// A value, or element `index` of one. Some writers cut texts inside a character: what is not UTF-8 is
    /// replaced in the text, and its bytes are kept.
    fn text(&mut self, what: &str, index: usize) -> Parsed<String> {
        let bytes = self.string(what)?;
        let text = String::from_utf8_lossy(bytes);
        if let Cow::Owned(_) = text {
            self.raw.push((index, bytes.into()));
        }
        Ok(text.into_owned())
    }

    pub(super) fn value(&mut self, key: &str) -> Parsed<Value> {
        let (at, what) = (self.at, format!("the value of {}", shown(key, 80)));
        let what = what.as_str();
        Ok(match self.u32(&format!("the type of {what}"))? {
            0 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            7 => {
                let (at, byte) = (self.at, self.take(1, what)?[0]);
                Value::Bool(self.truth(at, byte, what)?)
            }
            8 => Value::String(self.text(what, 0)?),
            9 => Value::Array(self.elements(1, what)?),
            10 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            id => {
                return Err(
                    self.fault(at, format!("{what} has type {id}, but GGUF has types 0 to 12"))
                );
            }
        })
    }

    fn truth(&self, at: u64, byte: u8, what: &str) -> Parsed<bool> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.fault(at, format!("{what} is the bool {byte}, but a bool is 0 or 1"))),
        }
    }

    /// `count` elements of `N` bytes each.
    pub(super) fn bytes_of<const N: usize>(
        &mut self,
        count: u64,
        what: &str,
    ) -> Parsed<&'a [[u8; N]]> {
        self.promise(count, N as u64, || format!("{what}, {count} elements,"))?;
        Ok(self.take(count * N as u64, what)?.as_chunks().0)
    }

    fn elements(&mut self, depth: u32, what: &str) -> Parsed<Array> {
        let at = self.at;
        let id = self.u32(&format!("the element type of {what}"))?;
        let count = self.u64(&format!("the length of {what}"))?;
        /// Numbers are copied out of the prefix, which holds them all.
        macro_rules! numbers {
            ($Name:ident, $type:ty) => {{
                let bytes = self.bytes_of(count, what)?;
                Array::$Name(bytes.iter().map(|&bytes| <$type>::from_le_bytes(bytes)).collect())
            }};
        }
        Ok(match id {
            0 => numbers!(U8, u8),
            1 => numbers!(I8, i8),
            2 => numbers!(U16, u16),
            3 => numbers!(I16, i16),
            4 => numbers!(U32, u32),
            5 => numbers!(I32, i32),
            6 => numbers!(F32, f32),
            7 => {
                let (at, bytes) = (self.at, self.take(count, what)?);
                let truths = bytes.iter().zip(at..).map(|(&byte, at)| self.truth(at, byte, what));
                Array::Bool(truths.collect::<Parsed<_>>()?)
            }
            8 => {
                self.promise(count, 8, || format!("{what}, {count} strings,"))?;
                let mut items = list(count);
                for index in 0..count as usize {
                    items.push(self.text("a string in an array", index)?);
                }
                Array::String(items)
            }
            9 if depth == DEEPEST_ARRAY => {
                let detail = format!(
                    "{what} nests arrays deeper than {DEEPEST_ARRAY} levels, which no model needs"
                );
                return Err(self.fault(at, detail));
            }
            9 => {
                self.promise(count, 12, || format!("{what}, {count} arrays,"))?;
                let mut items = list(count);
                for _ in 0..count {
                    items.push(self.elements(depth + 1, what)?);
                }
                Array::Array(items)
            }
            10 => numbers!(U64, u64),
            11 => numbers!(I64, i64),
            12 => numbers!(F64, f64),
            _ => {
                return Err(self.fault(
                    at,
                    format!("{what} has elements of type {id}, but GGUF has types 0 to 12"),
                ));
            }
        })
    }
}
