//! A file that has come in part: `FILE.part`, and beside it `FILE.part.json`, which says of what it is a part. A process
//! may end at any moment, and the next one goes on.
use super::progress::Progress;
use crate::cli::output::human;
use brooklet::kept;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes between two looks at what has come of a file whose sha256 nobody names.
const BETWEEN_CHECKS: u64 = 8 << 20;

/// What a file is, and where it comes from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) url: String,
    /// What tells that it is still the same file there.
    pub(super) etag: Option<String>,
    pub(super) size: Option<u64>,
    /// As the hub names it; of a whole file, as it is.
    pub(super) sha256: Option<String>,
    /// A beginning, and its sha256: what is surely on the disk of a file whose own nobody names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checked: Option<(u64, String)>,
}

impl Facts {
    /// What is known of a whole file.
    pub(super) fn of(target: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(with(target, ".json")).ok()?).ok()
    }

    /// What is known of a part.
    pub(super) fn of_part(target: &Path) -> Option<Self> {
        Self::of(&with(target, ".part"))
    }

    /// Whether a part of the one can go on as a part of the other.
    fn is_part_of(&self, wanted: &Self) -> bool {
        match &wanted.sha256 {
            Some(sha256) => self.sha256.as_ref() == Some(sha256),
            None => {
                let held_to = self.checked.is_some() || self.sha256.is_some();
                let one_size = wanted.size.is_none() || wanted.size == self.size;
                self.url == wanted.url && self.etag.is_some() && one_size && held_to
            }
        }
    }
}

/// The path with something behind its name.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(end);
    path.with_file_name(name)
}

/// A file that grows.
pub(super) struct Part {
    target: PathBuf,
    file: File,
    hash: Sha256,
    pub(super) len: u64,
    pub(super) facts: Facts,
    /// Whether some of it is from another time.
    pub(super) resumed: bool,
}

impl Part {
    /// What there is of `wanted` beside `target`, held to what was written down of it.
    pub(super) fn open(
        target: &Path,
        wanted: &Facts,
        progress: &mut Progress,
    ) -> Result<Self, String> {
        sweep(target);
        let path = with(target, ".part");
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(&path).map_err(|error| refused(&error, &path, None))?;
        let mut part = Self {
            target: target.to_owned(),
            file,
            hash: Sha256::new(),
            len: 0,
            facts: wanted.clone(),
            resumed: false,
        };
        if let Some(kept) = Facts::of_part(target).filter(|kept| kept.is_part_of(wanted)) {
            part.take_up(kept, progress).map_err(|error| refused(&error, &path, None))?;
        }
        Ok(part)
    }

    /// Hashes what is there, as far as it can be trusted.
    fn take_up(&mut self, kept: Facts, progress: &mut Progress) -> std::io::Result<()> {
        let there = self.file.metadata()?.len();
        let size = self.facts.size.or(kept.size);
        let known = kept.sha256.is_some();
        let trusted = match &kept.checked {
            _ if known => there,
            Some((checked, _)) => *checked,
            None => 0,
        };
        if trusted == 0 || trusted > there || size.is_some_and(|size| trusted > size) {
            return Ok(());
        }
        progress.begin(0, size);
        let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        let mut from = (&self.file).take(trusted);
        loop {
            let read = match from.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            len += read as u64;
            progress.at(len);
        }
        let same = kept.checked.as_ref().is_some_and(|(_, hex)| *hex == hex_of(hash.clone()));
        if len == trusted && (known || same) {
            let url = self.facts.url.clone();
            (self.hash, self.len, self.resumed) = (hash, len, true);
            self.facts = Facts { url, size, ..kept };
        }
        Ok(())
    }

    /// From the first byte on, of what the server has now.
    pub(super) fn restart(&mut self, facts: Facts) -> Result<(), String> {
        (self.hash, self.len, self.resumed) = (Sha256::new(), 0, false);
        self.facts = Facts { checked: None, ..facts };
        self.file.set_len(0).map_err(|error| self.refused(&error))?;
        self.note()
    }

    /// Before the first byte of a request: behind what is trusted there is nothing, and it is known whose part it is.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let placed = self.file.set_len(self.len);
        let placed = placed.and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
        placed.map_err(|error| self.refused(&error))?;
        let needed = self.facts.size.unwrap_or(0).saturating_sub(self.len);
        match self.target.parent().map(fs4::available_space) {
            Some(Ok(free)) if free < needed => Err(full(&self.target, needed, Some(free))),
            _ => Ok(()),
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|error| self.refused(&error))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        let last = self.facts.checked.as_ref().map_or(0, |(checked, _)| *checked);
        if self.facts.sha256.is_none() && self.len - last >= BETWEEN_CHECKS {
            self.check()?;
        }
        Ok(())
    }

    /// Writes down what is there by now.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.facts.checked = Some((self.len, hex_of(self.hash.clone())));
        self.note()
    }

    fn note(&self) -> Result<(), String> {
        let path = with(&self.target, ".part.json");
        let text = serde_json::to_vec_pretty(&self.facts).unwrap_or_default();
        kept::replace(&path, &text).map_err(|error| refused(&error, &path, None))
    }

    /// The sha256 of all that has come.
    pub(super) fn sha256(&self) -> String {
        hex_of(self.hash.clone())
    }

    /// The part is the file now.
    pub(super) fn finish(self) -> Result<(), String> {
        self.file.sync_all().map_err(|error| self.refused(&error))?;
        let facts = Facts {
            sha256: Some(self.sha256()),
            size: Some(self.len),
            checked: None,
            ..self.facts
        };
        let (part, target) = (with(&self.target, ".part"), self.target);
        drop(self.file);
        std::fs::rename(&part, &target).map_err(|error| refused(&error, &target, None))?;
        // What is known of it is only for `pull`, which does without.
        let _ = serde_json::to_vec_pretty(&facts)
            .map(|text| kept::replace(&with(&target, ".json"), &text));
        let _ = std::fs::remove_file(with(&target, ".part.json"));
        Ok(())
    }

    /// Nothing of it is worth keeping.
    pub(super) fn discard(self) {
        drop(self.file);
        for end in [".part", ".part.json"] {
            let _ = std::fs::remove_file(with(&self.target, end));
        }
    }

    fn refused(&self, error: &std::io::Error) -> String {
        let needed = self.facts.size.map(|size| size.saturating_sub(self.len));
        refused(error, &self.target, needed)
    }
}

/// Removes what a process left that was killed while it wrote down what it knew.
fn sweep(target: &Path) {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = target.parent().and_then(|folder| folder.read_dir().ok());
    for entry in entries.into_iter().flatten().flatten() {
        let left = entry.file_name().to_string_lossy().into_owned();
        if [".part.json.", ".json."].iter().any(|end| left.starts_with(&format!(".{name}{end}"))) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn hex_of(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sha256 of a file.
pub(super) fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hex_of(hash))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Why a file could not be written, and what to do.
pub(super) fn refused(error: &std::io::Error, path: &Path, needed: Option<u64>) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let free = path.parent().and_then(|folder| fs4::available_space(folder).ok());
            full(path, needed.unwrap_or(0), free)
        }
        ErrorKind::FileTooLarge => format!(
            "the system lets no file of {folder} grow larger, and {} are still to come (a limit set by ulimit -f, or a \
             disk whose files end at 4 GiB); what came is kept: lift the limit and say the same again, or set \
             BROOKLET_CACHE to a folder of another disk",
            human(needed.unwrap_or(0)),
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!(
                "{folder} cannot be written to ({error}); set BROOKLET_CACHE to a folder you may write to"
            )
        }
        _ => format!("{}: {error}", path.display()),
    }
}

fn full(path: &Path, needed: u64, free: Option<u64>) -> String {
    format!(
        "the disk of {} is full: {} are still to come, and {} are free; what came is kept: make room and say the same \
         again, or set BROOKLET_CACHE to a folder of another disk",
        path.parent().unwrap_or(path).display(),
        human(needed),
        free.map_or("none".to_owned(), human),
    )
}

#[cfg(test)]
mod tests {
    use super::refused;
    use std::io::{Error, ErrorKind};
    use std::path::Path;

    #[test]
    fn a_full_disk_says_what_it_lacks_and_what_it_has() {
        let path = Path::new("/tmp/model.gguf");
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let told = refused(&Error::from(kind), path, Some(3 << 30));
            assert!(
                told.contains("the disk of /tmp is full: 3.00 GiB are still to come"),
                "{told}"
            );
            assert!(told.contains("iB are free") && told.contains("BROOKLET_CACHE"), "{told}");
        }
    }
}
