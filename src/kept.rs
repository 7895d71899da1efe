//! The cache folder: what makes the next start faster, and can be lost at any time; and files that are written whole.
//! Native only.
use atomic_write_file::AtomicWriteFile;
use std::ffi::OsString;
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// `$BROOKLET_CACHE`, else `$XDG_CACHE_HOME/brooklet`, else `~/.cache/brooklet`. None where there is no home either. An
/// `XDG_CACHE_HOME` that is relative is ignored, as its specification asks.
pub fn folder() -> Option<PathBuf> {
    folder_of(|name| std::env::var_os(name), std::env::home_dir())
}

fn folder_of(var: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = set("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
    set("BROOKLET_CACHE")
        .or_else(|| caches.map(|folder| folder.join("brooklet")))
        .or_else(|| home.map(|home| home.join(".cache").join("brooklet")))
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

#[cfg(all(test, unix))]
mod tests {
    use super::folder_of;
    use std::path::{Path, PathBuf};

    #[test]
    fn the_folder_is_the_first_that_is_named_and_may_count() {
        let found = |own: &str, caches: &str| {
            let var = |name: &str| match name {
                "BROOKLET_CACHE" => Some(own.into()),
                "XDG_CACHE_HOME" => Some(caches.into()),
                other => panic!("{other}"),
            };
            folder_of(var, Some(PathBuf::from("/home/me"))).unwrap_or_default()
        };
        assert_eq!(found("", ""), Path::new("/home/me/.cache/brooklet"));
        assert_eq!(found("", "/caches"), Path::new("/caches/brooklet"));
        assert_eq!(found("", "caches"), Path::new("/home/me/.cache/brooklet"), "relative");
        assert_eq!(found("here", "/caches"), Path::new("here"), "our own may be anything");
        assert_eq!(folder_of(|_| Some("x".into()), None), Some(PathBuf::from("x")));
        assert_eq!(folder_of(|_| None, None), None);
    }

    #[test]
    fn build_sh_looks_in_the_same_folder() {
        let script = include_str!("../build.sh");
        let part = |from: &str, to: &str| {
            let start = script.find(from).expect(from);
            let len = script[start..].find(to).expect(to);
            &script[start..start + len + to.len()]
        };
        let functions = [part("\nabsolute()", "}\n"), part("\ncache_folder()", "\n}\n")].concat();
        let said = |own: &str, caches: &str| {
            let mut bash = std::process::Command::new("bash");
            bash.args(["-c", &format!("{functions}cache_folder x; printf %s \"$cache\"")]);
            bash.env("HOME", "/home/me").env("BROOKLET_CACHE", own).env("XDG_CACHE_HOME", caches);
            String::from_utf8(bash.output().expect("bash").stdout).expect("text")
        };
        assert_eq!(said("", ""), "/home/me/.cache/brooklet");
        assert_eq!(said("", "/caches"), "/caches/brooklet");
        assert_eq!(said("", "caches"), "/home/me/.cache/brooklet");
        assert_eq!(said("/own", "/caches"), "/own");
    }
}
