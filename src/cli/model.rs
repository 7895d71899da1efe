//! From a path to a model on the GPU.
use super::args::{ModelArgs, TextArgs};
use super::tuning;
use super::weights::Weights;
use super::wish::Wish;
use brooklet::format::{DEFAULT_MODEL, Gguf, Source, default_model};
use brooklet::model::{Config, LoadSettings, Model};
use brooklet::text::{Tokenizer, Vocab};
use brooklet::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use pollster::block_on;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A prompt is text: this is some 50 million tokens.
const MAX_TEXT: u64 = 256 << 20;

/// A file whose head is read and whose vocabulary is known. Nothing is on a GPU yet.
pub(crate) struct File {
    pub(crate) source: Weights,
    pub(crate) gguf: Gguf,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether tokens come by their numbers.
    ids: bool,
}

impl File {
    pub(crate) fn open(args: &ModelArgs) -> Result<Self> {
        Self::opened(args, false)
    }

    /// The same; with `ids`, for tokens that come by their numbers.
    pub(crate) fn opened(args: &ModelArgs, ids: bool) -> Result<Self> {
        let path = match &args.model {
            Some(path) => path.clone(),
            None => default_model().filter(|path| path.exists()).ok_or_else(|| {
                Error::Usage(format!(
                    "{DEFAULT_MODEL} is not in the cache folder: run ./build.sh setup to get it, \
                     or name a GGUF file with -m FILE"
                ))
            })?,
        };
        let (source, gguf) = Weights::open(&path, args.quant)?;
        warn(&gguf.warnings);
        // Of a model that does not run, that is what to say, and not what its vocabulary lacks.
        let tokenizer = Vocab::from_gguf(&gguf).and_then(Tokenizer::new);
        let tokenizer =
            tokenizer.map_err(|error| Config::expect_family(&gguf).err().unwrap_or(error));
        let tokenizer = match ids {
            // Nobody has to read or write a text: any model will do.
            true => match tokenizer {
                Ok(tokenizer) => tokenizer,
                Err(error) => {
                    warn(&[format!("{error}; tokens are told by their numbers")]);
                    let config = Config::from_gguf(&gguf)?;
                    Tokenizer::new(Vocab::numbered(config.n_vocab))?
                }
            },
            false => tokenizer?,
        };
        warn(tokenizer.warnings());
        Ok(Self { source, gguf, tokenizer: Arc::new(tokenizer), ids })
    }

    /// What the file says of its model, held to its tokenizer where that is asked.
    pub(crate) fn config(&self) -> Result<Config> {
        match self.ids {
            true => Config::from_gguf(&self.gguf),
            false => Config::for_tokens(&self.gguf, self.tokenizer.len()),
        }
    }

    /// The same for the same model wherever its file lies: the sha256 of the file's length, its head, and the first
    /// MiB of its weights. Reading all of a large file would take seconds.
    pub(crate) fn identity(&self) -> Result<String> {
        let (len, weights) = (self.source.len(), self.gguf.data_offset);
        let first_file = self.source.shards().get(1).map_or(len, |(_, start)| *start);
        let end = first_file.min(weights + (1 << 20));
        let bytes = block_on(self.source.bytes(0..end))?;
        let hash = Sha256::new().chain_update(len.to_le_bytes()).chain_update(bytes).finalize();
        Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Loads the model, with a bar on a terminal.
    pub(crate) fn load(&self, wish: Wish, quiet: bool) -> Result<Model> {
        self.load_as(self.config()?, wish, quiet)
    }

    /// The same as a model of another config than the file's.
    pub(crate) fn load_as(&self, config: Config, wish: Wish, quiet: bool) -> Result<Model> {
        self.load_told(config, wish, quiet, |_, _| {})
    }

    /// The same, telling how much of the file is read, of how much.
    pub(crate) fn load_told(
        &self,
        config: Config,
        wish: Wish,
        quiet: bool,
        mut told: impl FnMut(u64, u64),
    ) -> Result<Model> {
        let gpu = Arc::new(block_on(tuning::open(wish.adapter, wish.class))?);
        let choice = block_on(tuning::choose(&gpu, &self.gguf, &config, wish.tune))?;
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = "loading {bar:30} {bytes}/{total_bytes} {eta}";
        bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let mut progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            told(done, total);
        };
        let settings = LoadSettings { config, variant: Some(choice), kernels: wish.kernels };
        let (source, gguf) = (&self.source, &self.gguf);
        let model = block_on(Model::with_settings(gpu, source, gguf, settings, &mut progress));
        bar.finish_and_clear();
        let model = model?;
        model.gpu.keep_pipelines();
        Ok(model)
    }
}

/// Tells the user what is odd about a file that is read all the same; once, however often it is opened.
pub(crate) fn warn(warnings: &[String]) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for warning in warnings {
        if told.insert(warning.clone()) {
            eprintln!("warning: {warning}");
        }
    }
}

fn utf8(path: &str, bytes: Vec<u8>) -> Result<String> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::Usage(format!("{path}: byte {at} is not UTF-8; give the text as UTF-8"))
    })?;
    // Some editors begin a file with a mark that it is UTF-8. It is no part of the text.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Reads a text file whole.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let file =
        std::fs::File::open(path).map_err(|source| Error::Io { path: name.clone(), source })?;
    read_all(name, file)
}

/// The same, or standard input for `-`.
pub(crate) fn read_input(path: &Path) -> Result<String> {
    match path.as_os_str() == "-" {
        true => read_all("standard input".to_owned(), std::io::stdin()),
        false => read_text(path),
    }
}

fn read_all(name: String, from: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_TEXT + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { path: name.clone(), source })?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Error::Usage(format!("{name}: a text of more than 256 MiB; give less")));
    }
    utf8(&name, bytes)
}

/// The text the user named, if any.
pub(crate) fn text(args: &TextArgs) -> Result<Option<String>> {
    if let Some(path) = &args.file {
        return read_text(path).map(Some);
    }
    if args.stdin.is_some() {
        return read_all("standard input".to_owned(), std::io::stdin()).map(Some);
    }
    Ok(args.prompt.clone())
}

/// The ids of a prompt; never none.
pub(crate) fn prompt_ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let ids = tokenizer.encode_first(text)?;
    warn(tokenizer.doubled(&ids).as_slice());
    if ids.is_empty() {
        let why = "the prompt is empty and the model names no first token; give a text";
        return Err(Error::Usage(why.into()));
    }
    Ok(ids)
}
