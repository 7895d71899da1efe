//! The cache folder: what makes the next start faster, and can be lost at any time. Native only.
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// `$BROOKLET_CACHE`, else `$XDG_CACHE_HOME/brooklet`, else `~/.cache/brooklet`. None where there is no home either.
pub fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("BROOKLET_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("brooklet")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("brooklet")))
}

/// Writes a file whole or not at all: whoever reads it meanwhile has the one before. Its folder is made where there is
/// none.
pub fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut written = tempfile::NamedTempFile::new_in(folder)?;
    written.write_all(bytes)?;
    written.persist(file)?;
    Ok(())
}
