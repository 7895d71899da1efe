//! Standard output, whose reader may leave at any time, and whose disk may fill up.
use brooklet::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Stdout, Write};
use std::path::Path;

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
pub(crate) fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|source| Error::Io { path: path.display().to_string(), source })
}

/// A table that grows while something is measured.
pub(crate) struct Csv {
    path: String,
    file: BufWriter<File>,
}

impl Csv {
    /// A file with a line that names the columns.
    pub(crate) fn create(path: &Path, head: &str) -> Result<Self> {
        let path = path.display().to_string();
        let file =
            File::create(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let mut csv = Self { path, file: BufWriter::new(file) };
        csv.append(|file| writeln!(file, "{head}"))?;
        Ok(csv)
    }

    /// Adds lines, and sees that they are there whatever happens next.
    pub(crate) fn append(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        let written = write(&mut self.file).and_then(|()| self.file.flush());
        written.map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

/// Bytes as a person reads them.
pub(crate) fn human(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
