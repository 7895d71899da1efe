//! The head of a GGUF file: what the model is, and where each tensor lies. Versions 2 and 3, little-endian.
use super::blocks::{ggml_type_name, why_not};
use super::cursor::Stop;
use super::formats::DType;
use super::source::Source;
use super::value::shown;
pub use super::value::{Array, Value};
use super::{head, shards};
use crate::{Error, Result};
use std::ops::Range;

/// The first read; twice as much is read until the head fits, so the weights are never loaded with it.
const FIRST_READ: u64 = 1 << 20;
/// No head is longer: a vocabulary of 262,144 tokens with its merges takes 16 MiB.
const LONGEST_HEAD: u64 = 1 << 26;
/// Where the metadata begins: after magic, version and two counts.
pub(super) const METADATA_START: u64 = 24;

/// The head of a GGUF file, checked: every tensor of a known type lies inside the file and overlaps no other.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// The version of the format: 2 or 3.
    pub version: u32,
    /// Keys and values in file order, each key once.
    pub metadata: Vec<(String, Value)>,
    /// The tensors in file order, each name once.
    pub tensors: Vec<TensorInfo>,
    /// Every tensor's offset is a multiple of it.
    pub alignment: u64,
    /// Where the tensors begin, in bytes from the start of the file.
    pub data_offset: u64,
    /// The file's name, for errors.
    pub(super) file: String,
    /// Where each key stands in the file, for errors.
    pub(super) key_offsets: Vec<u64>,
    /// Strings that are not UTF-8: the index of the key, that of the string in an array, and the bytes.
    pub(super) raw: Vec<(usize, usize, Box<[u8]>)>,
    /// The files of the model, each with where it begins in the whole.
    pub(super) shards: Vec<(String, u64)>,
    /// What is odd about the file and does not keep it from being read: sentences for the user.
    pub warnings: Vec<String>,
}

/// A tensor's name, type, shape and place.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// The type's number in the file.
    pub type_id: u32,
    /// One to four dimensions, the contiguous one first: `[columns, rows, ...]`.
    pub dims: Vec<u64>,
    /// Where its bytes begin, from the start of the file; of the first one where a model is split.
    pub offset: u64,
    /// How many bytes it takes; 0 if the type is not known.
    pub size: u64,
    pub(super) known: Option<DType>,
}

impl TensorInfo {
    /// Some of its rows as a tensor of their own; of a vector, some of its elements.
    pub(crate) fn part(&self, rows: Range<u64>, vector: bool) -> Self {
        let count = rows.end - rows.start;
        let row_bytes = self.size / if vector { self.cols() } else { self.rows() }.max(1);
        Self {
            dims: if vector { vec![count] } else { vec![self.cols(), count] },
            offset: self.offset + rows.start * row_bytes,
            size: count * row_bytes,
            ..self.clone()
        }
    }

    /// The type of its elements, or [`Error::Unsupported`] naming tensor and type.
    pub fn dtype(&self) -> Result<DType> {
        self.known.ok_or_else(|| {
            Error::Unsupported(format!(
                "tensor {} has type {}, which {}; requantise the model to Q4_K_M, for instance",
                shown(&self.name, 80),
                self.type_text(),
                why_not(self.type_id)
            ))
        })
    }

    /// The type's name, with its number if brooklet cannot multiply it: `Q4_K`, `IQ2_XXS (16)`, `unknown (99)`.
    pub fn type_text(&self) -> String {
        match self.known {
            Some(dtype) => dtype.name().to_owned(),
            None => {
                format!("{} ({})", ggml_type_name(self.type_id).unwrap_or("unknown"), self.type_id)
            }
        }
    }

    /// The contiguous dimension.
    pub fn cols(&self) -> u64 {
        self.dims[0]
    }

    /// Elements in all.
    pub(crate) fn len(&self) -> usize {
        (self.cols() * self.rows()) as usize
    }

    /// The product of the other dimensions.
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }
}

/// The head of one file, which lies at `range` of `source`.
pub(super) async fn read_head(source: &impl Source, name: &str, range: Range<u64>) -> Result<Gguf> {
    read_head_from(source, name, range, FIRST_READ).await
}

async fn read_head_from(
    source: &impl Source,
    name: &str,
    range: Range<u64>,
    first: u64,
) -> Result<Gguf> {
    let len = range.end - range.start;
    let most = len.min(LONGEST_HEAD);
    let mut prefix = most.min(first);
    loop {
        let bytes = source.bytes(range.start..range.start + prefix).await?;
        match head::parse(name, &bytes, len) {
            Ok(gguf) => return Ok(gguf),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::ReadMore) if prefix < most => prefix = (2 * prefix).min(most),
            Err(Stop::ReadMore) => {
                let detail =
                    "the metadata and the tensor list are longer than 64 MiB, which no model needs";
                let (file, detail) = (name.to_owned(), detail.to_owned());
                return Err(Error::Format { file, offset: prefix, detail });
            }
        }
    }
}

impl Gguf {
    /// Reads the head of `source`, and nothing of the weights beyond the first MiB; of every file of a split model.
    pub async fn read(source: &impl Source) -> Result<Self> {
        Self::read_from(source, FIRST_READ).await
    }

    /// [`Gguf::read`] with a first read of `first` bytes, so that tests reach the second.
    pub(crate) async fn read_from(source: &impl Source, first: u64) -> Result<Self> {
        let (shards, mut heads) = (source.shards(), Vec::new());
        let ends = shards.iter().skip(1).map(|(_, start)| *start).chain([source.len()]);
        for ((name, start), end) in shards.iter().zip(ends) {
            heads.push(read_head_from(source, name, *start..end, first).await?);
        }
        shards::join(heads, shards)
    }

    /// The error of a file that breaks the rules at `offset`, in bytes from the start of the whole.
    pub(crate) fn fault(&self, offset: u64, detail: String) -> Error {
        let (file, offset) = self.place(offset);
        Error::Format { file: file.to_owned(), offset, detail }
    }

    /// The file that has the byte at `offset` of the whole, and where in it that is.
    pub(super) fn place(&self, offset: u64) -> (&str, u64) {
        let shard = self.shards.iter().rfind(|(_, start)| *start <= offset);
        shard.map_or((&self.file, offset), |(name, start)| (name, offset - start))
    }

    /// The file's name as the user gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// The matrices of the layers.
    pub fn layer_matrices(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter().filter(|tensor| tensor.name.starts_with("blk.") && tensor.rows() > 1)
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The value of `key` as `convert` sees it; an error if the key is there but `convert` gives `None`.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(index) = self.metadata.iter().position(|(k, _)| k == key) else { return Ok(None) };
        let value = &self.metadata[index].1;
        convert(value).map(Some).ok_or_else(|| Error::Format {
            file: self.file.clone(),
            offset: self.key_offsets.get(index).copied().unwrap_or(METADATA_START),
            detail: format!(
                "the key {key} is {}, but brooklet wants {wanted} there",
                value.describe()
            ),
        })
    }

    /// The value that must be there.
    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::Format {
            file: self.file.clone(),
            offset: METADATA_START,
            detail: format!(
                "the metadata lacks the key {key}, without which this model cannot be run"
            ),
        })
    }

    /// An integer of any width that fits a `u32`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer that fits u32", |v| v.integer()?.try_into().ok())
    }

    /// An integer of any width that fits a `u64`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer that fits u64", |v| v.integer()?.try_into().ok())
    }

    /// A number of any type, rounded to `f32`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number (f32)", |v| v.number().map(|x| x as f32))
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| if let Value::Bool(b) = v { Some(*b) } else { None })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(
            key,
            "a string",
            |v| if let Value::String(s) = v { Some(s.as_str()) } else { None },
        )
    }

    /// [`Gguf::u32`], or an error naming the missing key.
    pub fn need_u32(&self, key: &str) -> Result<u32> {
        self.need(key, self.u32(key)?)
    }

    /// [`Gguf::u64`], or an error naming the missing key.
    pub fn need_u64(&self, key: &str) -> Result<u64> {
        self.need(key, self.u64(key)?)
    }

    /// [`Gguf::f32`], or an error naming the missing key.
    pub fn need_f32(&self, key: &str) -> Result<f32> {
        self.need(key, self.f32(key)?)
    }

    /// [`Gguf::bool`], or an error naming the missing key.
    pub fn need_bool(&self, key: &str) -> Result<bool> {
        self.need(key, self.bool(key)?)
    }

    /// [`Gguf::str`], or an error naming the missing key.
    pub fn need_str(&self, key: &str) -> Result<&str> {
        self.need(key, self.str(key)?)
    }

    /// [`Gguf::strings`], or an error naming the missing key.
    pub fn need_strings(&self, key: &str) -> Result<&[String]> {
        self.need(key, self.strings(key)?)
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of numbers of any type, each rounded to `f32`.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "an array of numbers", |v| match v {
            Value::Array(array) => array.f32s(),
            _ => None,
        })
    }

    /// An array of integers of any type that fit `i32`.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "an array of integers that fit i32", |v| match v {
            Value::Array(array) => array.i32s(),
            _ => None,
        })
    }

    /// An index such as a token's id. A negative one, or one beyond `u32`, stands for none: so writers say that
    /// there is no such token.
    pub fn index(&self, key: &str) -> Result<Option<u32>> {
        let index = self.typed(key, "an integer", Value::integer)?;
        Ok(index.and_then(|n| n.try_into().ok()))
    }

    /// The strings of `key` that are not UTF-8: the index of each in its array (0 where there is none), and the bytes
    /// that [`Gguf::strings`] and [`Gguf::str`] show with replacement characters.
    pub fn raw_strings(&self, key: &str) -> impl Iterator<Item = (usize, &[u8])> {
        let key = self.metadata.iter().position(|(k, _)| k == key);
        let of_key = move |raw: &&(usize, usize, Box<[u8]>)| Some(raw.0) == key;
        self.raw.iter().filter(of_key).map(|(_, index, bytes)| (*index, &**bytes))
    }
}
