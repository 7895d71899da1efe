//! Standard output, whose reader may leave at any time, and whose disk may fill up.
use brooklet::{Error, Result};
use std::io::{BufWriter, Stdout, Write};

pub(crate) struct Output(BufWriter<Stdout>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::new(std::io::stdout()))
    }

    /// Writes and flushes: a stream is read as it comes.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        let written = self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush());
        written.map_err(|source| Error::Io { path: "standard output".into(), source })
    }

    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let line = serde_json::to_string(value)
            .map_err(|e| Error::Io { path: "standard output".into(), source: e.into() })?;
        self.text(&format!("{line}\n"))
    }
}

/// Writes a file that the user named.
pub(crate) fn write_file(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|source| Error::Io { path: path.display().to_string(), source })
}

/// Bytes as a person reads them.
pub(crate) fn human(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
