//! Where a model file comes from. The parser and the loader ask for ranges and never for the whole.
use std::borrow::Cow;
use std::ops::Range;

use crate::{Error, Result};

/// A file that can be read in ranges, natively (mapped) or asynchronously (fetched).
pub trait Source {
    /// The file's name as the user gave it; errors begin with it.
    fn name(&self) -> &str;

    /// The file's length in bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`: [`Error::Format`] if it runs past the end, [`Error::Io`] if reading fails.
    fn bytes(&self, range: Range<u64>) -> impl Future<Output = Result<Cow<'_, [u8]>>>;

    /// Nothing before byte `end` will be asked for again. What has been fetched of it can be dropped.
    fn release(&self, end: u64) {
        let _ = end;
    }

    /// The files that this is made of, in order: the name of each, and where it begins. One, unless a model is split.
    fn shards(&self) -> Vec<(String, u64)> {
        vec![(self.name().to_owned(), 0)]
    }
}

/// How many bytes `range` has, once it is known to lie inside `source`. Every [`Source`] starts with this. A file may
/// be longer than memory can be addressed, as files above 4 GiB are in wasm: only what is asked for at once must fit.
pub fn check_range(source: &impl Source, range: &Range<u64>) -> Result<usize> {
    let fault =
        |detail| Error::Format { file: source.name().to_owned(), offset: range.start, detail };
    if range.start > range.end {
        return Err(fault(format!(
            "the range to read ends at byte {}, before its start",
            range.end
        )));
    }
    let length = range.end - range.start;
    if range.end > source.len() {
        return Err(fault(format!(
            "the file is truncated: {length} bytes are wanted from here, but it ends at byte {}",
            source.len()
        )));
    }
    let many = || fault(format!("{length} bytes are wanted at once, more than this machine holds"));
    usize::try_from(length).map_err(|_| many())
}

/// `range` of what is in memory, where every index fits.
fn in_memory<'a>(source: &impl Source, bytes: &'a [u8], range: &Range<u64>) -> Result<&'a [u8]> {
    let length = check_range(source, range)?;
    Ok(&bytes[range.start as usize..][..length])
}

/// What `./build.sh setup` puts into the cache folder.
#[cfg(not(target_arch = "wasm32"))]
pub const DEFAULT_MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Where the default model is or would be: in the cache folder, if there is one.
#[cfg(not(target_arch = "wasm32"))]
pub fn default_model() -> Option<std::path::PathBuf> {
    crate::kept::folder().map(|folder| folder.join(DEFAULT_MODEL))
}

/// A file mapped into memory: a range costs nothing until its pages are touched.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
pub struct FileSource {
    name: String,
    map: memmap2::Mmap,
}

#[cfg(not(target_arch = "wasm32"))]
impl FileSource {
    /// Maps the file at `path`.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        use std::io::{Error as IoError, ErrorKind};
        let name = path.display().to_string();
        let io = |source| Error::Io { path: name.clone(), source };
        let sentence = |e: IoError| match e.kind() {
            ErrorKind::NotFound => {
                io(IoError::new(e.kind(), "there is no such file; check the path"))
            }
            _ => io(e),
        };
        // Looked at before it is opened: opening a pipe waits for whoever writes into it.
        let facts = std::fs::metadata(path).map_err(sentence)?;
        if facts.is_dir() {
            let advice = "this is a directory; name the .gguf file inside it";
            return Err(io(IoError::new(ErrorKind::IsADirectory, advice)));
        }
        if !facts.is_file() {
            let advice = "this is a pipe or a device, and a model must be a file, as it is read in \
                          any order; save it to a file and name that";
            return Err(io(IoError::new(ErrorKind::InvalidInput, advice)));
        }
        let file = std::fs::File::open(path).map_err(sentence)?;
        if facts.len() == 0 {
            let detail = "the file is empty; perhaps its download never began".to_owned();
            return Err(Error::Format { file: name, offset: 0, detail });
        }
        // SAFETY: the map is read-only and lives as long as `self`. Another process that shortens or
        // rewrites the file meanwhile is outside of what any reader of maps can prevent.
        #[allow(unsafe_code, reason = "mapping is the only way not to copy gigabytes of weights")]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self { name, map })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(in_memory(self, &self.map, &range)?))
    }
}

/// A file that is already in memory.
#[derive(Clone, Debug)]
pub struct BytesSource {
    name: String,
    bytes: Vec<u8>,
}

impl BytesSource {
    /// `bytes` as a file called `name`.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

impl Source for BytesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(in_memory(self, &self.bytes, &range)?))
    }
}
