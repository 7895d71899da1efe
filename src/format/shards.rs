//! A model that was cut into several files, as llama.cpp's `gguf-split` does it, read as one: the bytes of the files
//! one after another. Any of the files leads to all, by the keys `split.no`, `split.count` and the number in its name.
use super::gguf::{Gguf, read_head};
use super::source::{Source, check_range};
use super::value::shown;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// The files of one model; one, unless it is split.
#[derive(Debug)]
pub struct Shards<S> {
    name: String,
    /// Each with where it begins in the whole.
    shards: Vec<(u64, S)>,
    len: u64,
}

impl<S: Source> Shards<S> {
    fn new(name: String, files: Vec<S>) -> Self {
        let mut len = 0;
        let begins = |file: S| {
            let start = len;
            len += file.len();
            (start, file)
        };
        let shards = files.into_iter().map(begins).collect();
        Self { name, shards, len }
    }

    /// `named`, whose file is called `file_name`, or all files of the model that it is a shard of, and their heads as
    /// one. `open` is asked for each of the others by its file name.
    pub async fn gather(
        named: S,
        file_name: &str,
        mut open: impl AsyncFnMut(&str) -> Result<S>,
    ) -> Result<(Self, Gguf)> {
        let name = named.name().to_owned();
        let head = read_head(&named, &name, 0..named.len()).await?;
        let (no, count) = place(&head)?;
        if count == 1 {
            return Ok((Self::new(name, vec![named]), head));
        }
        let names = names(file_name, no, count).ok_or_else(|| {
            Error::Unsupported(format!(
                "{name} is file {} of {count} of a split model, but its name does not end in \
                 {:05}-of-{count:05}.gguf, by which the others are found; give the files their names back",
                no + 1,
                no + 1
            ))
        })?;
        let (mut files, mut named) = (Vec::new(), Some(named));
        for (i, file) in names.iter().enumerate() {
            files.push(match named.take_if(|_| i as u64 == no) {
                Some(named) => named,
                None => open(file).await.map_err(|error| missing(error, &name, i, count))?,
            });
        }
        let shards = Self::new(name, files);
        let gguf = Gguf::read(&shards).await?;
        Ok((shards, gguf))
    }

    /// The file that holds all of `range`, and where in it that is.
    fn find(&self, range: &Range<u64>) -> Result<(&S, Range<u64>)> {
        check_range(self, range)?;
        let at = self.shards.partition_point(|(start, _)| *start <= range.start);
        let (start, file) = &self.shards[at.saturating_sub(1)];
        Ok((file, range.start - start..range.end - start))
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Shards<super::FileSource> {
    /// The model that the file at `path` is, or is a shard of.
    pub async fn open(path: &std::path::Path) -> Result<(Self, Gguf)> {
        let named = super::FileSource::open(path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::gather(named, &file_name, async |name| {
            super::FileSource::open(&path.with_file_name(name))
        })
        .await
    }
}

impl<S: Source> Source for Shards<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let (file, range) = self.find(&range)?;
        file.bytes(range).await
    }

    fn release(&self, end: u64) {
        for (start, file) in &self.shards {
            if *start < end {
                file.release((end - start).min(file.len()));
            }
        }
    }

    fn shards(&self) -> Vec<(String, u64)> {
        self.shards.iter().map(|(start, file)| (file.name().to_owned(), *start)).collect()
    }
}

/// `gguf-split` counts in 16 bits.
const MOST_FILES: u64 = u16::MAX as u64;

/// Which file of how many a head says it is, from 0 on.
fn place(head: &Gguf) -> Result<(u64, u64)> {
    let count = head.u64("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok((0, 1));
    }
    if count > MOST_FILES {
        let detail = format!("the key split.count is {count}; {MOST_FILES} files at most work");
        return Err(head.fault(0, detail));
    }
    match head.u64("split.no")?.unwrap_or(0) {
        no if no < count => Ok((no, count)),
        no => {
            let detail = format!("the keys split.no and split.count are {no} and {count}");
            Err(head.fault(0, detail))
        }
    }
}

/// The names of all files of a model, told from the name of one: `NAME-00002-of-00003.gguf`, in that width.
fn names(name: &str, no: u64, count: u64) -> Option<Vec<String>> {
    fn number(text: &str) -> Option<(&str, &str)> {
        let rest = text.trim_end_matches(|c: char| c.is_ascii_digit());
        (rest.len() < text.len()).then(|| text.split_at(rest.len()))
    }
    let (rest, all) = number(name.strip_suffix(".gguf")?)?;
    let between = ["-of-", "_of_"].into_iter().find(|between| rest.ends_with(between))?;
    let (before, this) = number(rest.strip_suffix(between)?)?;
    if this.parse() != Ok(no + 1) || all.parse() != Ok(count) {
        return None;
    }
    let width = this.len();
    Some((1..=count).map(|i| format!("{before}{i:0width$}{between}{all}.gguf")).collect())
}

/// The error of a file that was not named by the user.
fn missing(error: Error, named: &str, index: usize, count: u64) -> Error {
    let Error::Io { path, source } = error else { return error };
    let why = format!(
        "file {} of {count} of the model that {named} is a part of: {source}; keep all of them in one folder",
        index + 1
    );
    Error::Io { path, source: std::io::Error::new(source.kind(), why) }
}

/// The heads of all files of a model, in order, as one: the metadata of the first, the tensors of all.
pub(super) fn join(heads: Vec<Gguf>, shards: Vec<(String, u64)>) -> Result<Gguf> {
    let files = heads.len() as u64;
    let (mut tensors, mut warnings) = (Vec::new(), Vec::new());
    for (i, (head, (_, start))) in heads.iter().zip(&shards).enumerate() {
        let (no, count) = place(head)?;
        if count != files {
            return Err(Error::Unsupported(format!(
                "{} is file {} of {count} of a split model, which needs all of them; {files} came",
                head.file(),
                no + 1
            )));
        }
        if no != i as u64 {
            let detail =
                format!("this is file {} of the model where file {} should be", no + 1, i + 1);
            return Err(head.fault(0, detail));
        }
        warnings.extend(head.warnings.iter().cloned());
        let moved = head.tensors.iter().cloned().map(|mut tensor| {
            // One of a type that is not known may be said to lie anywhere.
            tensor.offset = tensor.offset.saturating_add(*start);
            tensor
        });
        tensors.extend(moved);
    }
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| shown(pair[0], 80));
    let found = names.len() as u64;
    let mut heads = heads.into_iter();
    let Some(first) = heads.next() else {
        return Err(Error::Unsupported("a model of no files".to_owned()));
    };
    if let Some(name) = twice {
        let detail = format!("the tensor {name} is in two of the files of this model");
        return Err(first.fault(0, detail));
    }
    match first.u64("split.tensors.count")? {
        Some(wanted) if files > 1 && wanted != found => {
            let detail = format!(
                "the model is split and has {wanted} tensors, but its files have {found}; get them anew"
            );
            Err(first.fault(0, detail))
        }
        _ => Ok(Gguf { tensors, warnings, shards, ..first }),
    }
}
