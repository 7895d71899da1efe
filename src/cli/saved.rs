//! `--save` and `--resume`: a stream that outlives its process.
use super::args::RunArgs;
use brooklet::format::Gguf;
use brooklet::kept;
use brooklet::model::Config;
use brooklet::session::{Generation, Session, Snapshot};
use brooklet::text::Detokenizer;
use brooklet::{Error, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::{Error as IoError, Read};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(next_help_heading = "Saving")]
pub(crate) struct SaveArgs {
    /// Keep the stream in FILE: from the prompt on, every --save-every tokens, at the end and on Ctrl-C
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Tokens after which it is saved again
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "save",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) save_every: u64,
    /// Go on with a stream that --save has kept, after a text if one is given. Its cache and its sampling are the
    /// file's
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
}

/// What `run` writes beside the stream.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// The beginning of a character that was not printed yet.
    held: Vec<u8>,
}

/// Where a stream is kept, and how that went.
pub(crate) struct Keeper {
    path: PathBuf,
    every: u64,
    /// The stream's position in the file that is there.
    position: Option<u64>,
    tried: u64,
    failed: u64,
}

/// What the summary says of it.
#[derive(Serialize)]
pub(crate) struct Kept {
    pub(crate) file: String,
    /// Tokens of the stream in the file; none where nothing could be saved.
    pub(crate) position: Option<u64>,
    failed: u64,
}

impl Keeper {
    /// Nothing is written yet, but what could not be is refused.
    pub(crate) fn new(path: &Path, every: u64) -> Result<Self> {
        let wrong = |why: &str| Err(Error::Usage(format!("--save {}: {why}", path.display())));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return wrong("there is no such folder; make it first");
        }
        match std::fs::metadata(path) {
            Ok(facts) if !facts.is_file() => return wrong("this is not a file; name one"),
            Ok(facts) if facts.len() > 0 && !Snapshot::begins(&first_bytes(path)?) => {
                return wrong("this file is not a saved stream and will not be overwritten");
            }
            _ => {}
        }
        Ok(Self { path: path.to_owned(), every, position: None, tried: 0, failed: 0 })
    }

    /// Whether it is time, after so many tokens.
    pub(crate) fn due(&self, tokens: u64) -> bool {
        tokens.is_multiple_of(self.every)
    }

    /// Puts the stream into the file, or leaves the file as it was and says so. An error is the device's.
    pub(crate) async fn save(
        &mut self,
        session: &Session,
        generation: &Generation,
        note: String,
    ) -> Result<()> {
        if self.position == Some(session.position()) {
            return Ok(());
        }
        let snapshot = session.snapshot(Some(generation), note).await?;
        self.tried += 1;
        match kept::replace(&self.path, snapshot.as_bytes()) {
            Ok(()) => self.position = Some(snapshot.position()),
            Err(error) => {
                self.failed += 1;
                let holds = self.holds();
                eprintln!(
                    "brooklet: --save {}: {error}; {holds}, and the stream goes on",
                    self.path.display()
                );
            }
        }
        Ok(())
    }

    fn holds(&self) -> String {
        match self.position {
            Some(position) => format!("the file still holds the stream at token {position}"),
            None => "the file is as it was before".to_owned(),
        }
    }

    pub(crate) fn kept(&self) -> Kept {
        let file = self.path.display().to_string();
        Kept { file, position: self.position, failed: self.failed }
    }

    /// An error when a save has failed.
    pub(crate) fn verdict(&self) -> Result<()> {
        if self.failed == 0 {
            return Ok(());
        }
        let what = format!("{} of {} saves failed; {}", self.failed, self.tried, self.holds());
        Err(Error::Io { path: self.path.display().to_string(), source: IoError::other(what) })
    }
}

fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let io = |source| Error::Io { path: path.display().to_string(), source };
    std::fs::File::open(path).map_err(io)?.take(8).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Reads a saved stream.
pub(crate) fn open(path: &Path) -> Result<Snapshot> {
    let name = path.display().to_string();
    let io = |source| Error::Io { path: name.clone(), source };
    let facts = std::fs::metadata(path).map_err(io)?;
    if !facts.is_file() {
        return Err(Error::Usage(format!(
            "--resume {name}: this is not a file; name a saved stream"
        )));
    }
    // What is something else is not read to its end.
    let first = first_bytes(path)?;
    let bytes = if Snapshot::begins(&first) { std::fs::read(path).map_err(io)? } else { first };
    Snapshot::from_bytes(&name, bytes)
}

/// An error that names the first option which was `given` and says other than the saved stream.
pub(crate) fn expect_agreement(
    args: &RunArgs,
    given: &[String],
    gguf: &Gguf,
    saved: &Snapshot,
) -> Result<()> {
    let (cache, was) = (args.cache.settings(&Config::from_gguf(gguf)?), saved.settings());
    let Some((by, banned)) = saved.sampling() else {
        return Err(Error::Usage("--resume: the stream was not saved by `brooklet run`".into()));
    };
    let sampling = args.sampling.settings(was.sinks + was.window);
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let pairs: [(&str, String, String); 15] = [
        ("policy", word(&cache.policy), word(&was.policy)),
        ("sinks", word(&cache.sinks), word(&was.sinks)),
        ("window", word(&cache.window), word(&was.window)),
        ("chunk", word(&cache.chunk), word(&was.chunk)),
        ("kv", word(&cache.kv), word(&was.kv)),
        ("temp", word(&sampling.temperature), word(&by.temperature)),
        ("top_k", word(&sampling.top_k), word(&by.top_k)),
        ("top_p", word(&sampling.top_p), word(&by.top_p)),
        ("min_p", word(&sampling.min_p), word(&by.min_p)),
        ("repeat_penalty", word(&sampling.repeat_penalty), word(&by.repeat_penalty)),
        ("presence_penalty", word(&sampling.presence_penalty), word(&by.presence_penalty)),
        ("frequency_penalty", word(&sampling.frequency_penalty), word(&by.frequency_penalty)),
        ("repeat_last_n", word(&sampling.penalty_last_n), word(&by.penalty_last_n)),
        ("logit_bias", word(&sampling.bias), word(&by.bias)),
        ("seed", word(&sampling.seed), word(&by.seed)),
    ];
    let differs = |(id, here, was): &&(&str, String, String)| {
        given.iter().any(|given| given == id) && here != was
    };
    if let Some((id, here, was)) = pairs.iter().find(differs) {
        let flag = id.replace('_', "-");
        return Err(Error::Usage(format!(
            "--{flag} {here}: the stream was saved with {was}; leave the option out, or begin a new \
             stream without --resume"
        )));
    }
    match args.stop_at_eos && !banned.is_empty() {
        true => Err(Error::Usage(
            "--stop-at-eos: the stream was saved without it; leave it out, or begin a new stream \
             without --resume"
                .into(),
        )),
        false => Ok(()),
    }
}

/// What goes beside the stream.
pub(crate) fn note(detokenizer: &Detokenizer) -> String {
    serde_json::to_string(&Note { held: detokenizer.held().to_vec() }).unwrap_or_default()
}

/// Where the text stopped.
pub(crate) fn detokenizer(saved: &Snapshot) -> Result<Detokenizer> {
    let note: Note = serde_json::from_str(saved.note())
        .map_err(|_| Error::Usage("--resume: the stream was not saved by `brooklet run`".into()))?;
    Ok(Detokenizer::holding(&note.held))
}
