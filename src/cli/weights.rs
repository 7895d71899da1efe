//! Where weights come from: the files of a GGUF model, or a folder that is read as one. And `convert`, which writes that.
use super::output::human;
use atomic_write_file::AtomicWriteFile;
use brooklet::format::{FileSource, Folder, Gguf, Quant, Shards, Source};
use brooklet::{Error, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use pollster::block_on;
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes that are written at once.
const PIECE: u64 = 16 << 20;

/// What a model is read from.
pub(crate) enum Weights {
    Files(Shards<FileSource>),
    Folder(Folder),
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum QuantArg {
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_k")]
    Q4K,
}

impl From<QuantArg> for Quant {
    fn from(quant: QuantArg) -> Self {
        match quant {
            QuantArg::F16 => Self::F16,
            QuantArg::Q8_0 => Self::Q8_0,
            QuantArg::Q4_0 => Self::Q4_0,
            QuantArg::Q4K => Self::Q4K,
        }
    }
}

#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// A folder with config.json, tokenizer.json and *.safetensors
    folder: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// The type that matrices get [default: as they are]
    #[arg(long, value_enum)]
    quant: Option<QuantArg>,
}

impl Weights {
    /// What is at `path`, and its head.
    pub(crate) fn open(path: &Path, quant: Option<QuantArg>) -> Result<(Self, Gguf)> {
        if path.is_dir() {
            let folder = Folder::open(path, quant.map(Quant::from))?;
            let gguf = block_on(Gguf::read(&folder))?;
            return Ok((Self::Folder(folder), gguf));
        }
        if quant.is_some() {
            let file = path.display();
            let why =
                format!("--quant is for folders of safetensors: what {file} holds stays as it is");
            return Err(Error::Usage(why));
        }
        block_on(Shards::open(path)).map(|(files, gguf)| (Self::Files(files), gguf))
    }
}

impl Source for Weights {
    fn name(&self) -> &str {
        match self {
            Self::Files(files) => files.name(),
            Self::Folder(folder) => folder.name(),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Files(files) => files.len(),
            Self::Folder(folder) => folder.len(),
        }
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Files(files) => files.bytes(range).await,
            Self::Folder(folder) => folder.bytes(range).await,
        }
    }

    fn release(&self, end: u64) {
        if let Self::Files(files) = self {
            files.release(end);
        }
    }

    fn shards(&self) -> Vec<(String, u64)> {
        match self {
            Self::Files(files) => files.shards(),
            Self::Folder(folder) => folder.shards(),
        }
    }
}

/// Writes a folder as a GGUF file, whole or not at all.
pub(crate) fn convert(args: &ConvertArgs) -> Result<()> {
    let folder = Folder::open(&args.folder, args.quant.map(Quant::from))?;
    let io = |source| Error::Io { path: args.out.display().to_string(), source };
    let mut file = AtomicWriteFile::open(&args.out).map_err(io)?;
    let shown = std::io::stderr().is_terminal();
    let bar = if shown { ProgressBar::new(folder.len()) } else { ProgressBar::hidden() };
    let style = "converting {bar:30} {bytes}/{total_bytes} {eta}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut at = 0;
    while at < folder.len() {
        let end = folder.len().min(at + PIECE);
        file.write_all(&block_on(folder.bytes(at..end))?).map_err(io)?;
        at = end;
        bar.set_position(at);
    }
    file.commit().map_err(io)?;
    bar.finish_and_clear();
    eprintln!("brooklet: {}, {}", args.out.display(), human(folder.len()));
    Ok(())
}
