//! The cache folder: what makes the next start faster, and can be lost at any time; and files that are written whole.
//! Native only.
use atomic_write_file::AtomicWriteFile;
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// `$BROOKLET_CACHE`, else `$XDG_CACHE_HOME/brooklet`, else `~/.cache/brooklet`. None where there is no home either.
pub fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("BROOKLET_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("brooklet")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("brooklet")))
}

/// Writes a file whole or not at all: one without a name takes the place of the old one once it is on the disk, and
/// whoever reads it meanwhile has the one before.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicWriteFile::open(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// The same in the cache folder, of which what is missing is made.
pub fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    replace(path, bytes)
}
