//! One file, from an address to a path: what is there already is not asked for again, and what came is what was meant.
use super::address::Address;
use super::http::{Answer, Http};
use super::part::{Facts, Part, refused, with};
use super::progress::Progress;
use super::retry::{Backoff, Failure};
use crate::cli::output::human;
use fs4::{FileExt, TryLockError};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// After so many new bytes a connection that breaks is a new one, and not the same trouble again.
const GETS_ON: u64 = 1 << 20;
/// So often a download begins anew before something must be wrong with the server.
const MOST_STARTS: u32 = 3;
/// Between two looks whether another process is done.
const LOOK: Duration = Duration::from_millis(100);

/// A file that is to be fetched.
pub(super) struct Wanted {
    pub(super) address: Address,
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// Keeps other processes from fetching the same file at the same time.
pub(super) struct Lock(
    #[cfg_attr(not(unix), expect(dead_code, reason = "held, and looked at on Unix alone"))] File,
);

impl Lock {
    /// Waits for another process that has it, and says so.
    pub(super) fn wait(target: &Path, tell: impl Fn(&str)) -> Result<Self, String> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::take(target)? {
                return Ok(lock);
            }
            if !told {
                tell("another brooklet is fetching this file; waiting for it");
                told = true;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// None if another process has it.
    pub(super) fn take(target: &Path) -> Result<Option<Self>, String> {
        let path = with(target, ".lock");
        let io = |error: &std::io::Error| refused(error, &path, None);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| io(&error))?;
        match FileExt::try_lock(&file) {
            Ok(()) => Ok(Some(Self(file)).filter(|lock| lock.is_at(&path))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io(&error)),
        }
    }

    /// Whether this is the file that others find there. Whoever had it before may have removed it.
    fn is_at(&self, path: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let number =
                |facts: std::io::Result<std::fs::Metadata>| facts.map(|facts| facts.ino()).ok();
            number(self.0.metadata()) == number(path.metadata())
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            true
        }
    }

    /// Lets others in, and leaves nothing behind.
    pub(super) fn remove(self, target: &Path) {
        let _ = std::fs::remove_file(with(target, ".lock"));
        drop(self);
    }
}

/// Fetches `wanted`; `is_there` says, once no other process can be at it, whether that is still needed.
pub(super) fn download(
    http: &Http,
    wanted: &Wanted,
    target: &Path,
    mut progress: Progress,
    is_there: impl FnOnce() -> bool,
) -> Result<(), String> {
    let folder = target.parent().unwrap_or(target);
    std::fs::create_dir_all(folder).map_err(|error| refused(&error, target, None))?;
    let lock = Lock::wait(target, |what| progress.say(what))?;
    let done = if is_there() { Ok(()) } else { whole(http, wanted, target, &mut progress) };
    // A part of nothing is worth nothing.
    if with(target, ".part").metadata().is_ok_and(|part| part.len() == 0) {
        for end in [".part", ".part.json"] {
            let _ = std::fs::remove_file(with(target, end));
        }
    }
    lock.remove(target);
    done
}

/// The same by the one process that is at it.
fn whole(
    http: &Http,
    wanted: &Wanted,
    target: &Path,
    progress: &mut Progress,
) -> Result<(), String> {
    let facts = Facts {
        url: wanted.address.as_str().to_owned(),
        size: wanted.size,
        sha256: wanted.sha256.clone(),
        ..Facts::default()
    };
    let mut part = Part::open(target, &facts, progress)?;
    let begun = Instant::now();
    let (mut starts, mut backoff, mut came) = (0, Backoff::new(http.patience), 0);
    if part.len > 0 {
        progress.say(&format!("going on at {}", human(part.len)));
    }
    loop {
        let before = part.len;
        let attempt = match part.facts.size {
            Some(size) if size == part.len && size > 0 => Ok(()),
            _ => attempt(http, wanted, &mut part, progress),
        };
        came += part.len.saturating_sub(before);
        let why = match attempt {
            Ok(()) => match part.facts.sha256.clone() {
                Some(sha256) if sha256 != part.sha256() => {
                    let found = part.sha256();
                    if !part.resumed {
                        part.discard();
                        return Err(format!(
                            "what came is damaged: its sha256 is {found}, and {} names {sha256}. It is not kept; \
                             say the same again, and if it stays so, something on the way changes files",
                            wanted.address.host()
                        ));
                    }
                    "what was kept from before is damaged".to_owned()
                }
                _ => break,
            },
            Err(Stop::Anew(why)) => why,
            Err(Stop::Failed(failure)) => {
                if part.len.saturating_sub(before) >= GETS_ON {
                    backoff.reset();
                }
                // So that a try after this one finds what came, whoever makes it.
                if part.facts.sha256.is_none() && part.len > before {
                    part.check()?;
                }
                backoff.wait(failure, |what| progress.say(what)).map_err(|why| match part.len {
                    0 => why,
                    len => format!(
                        "{why}. {} are kept, and the same command goes on there",
                        human(len)
                    ),
                })?;
                continue;
            }
        };
        starts += 1;
        if starts == MOST_STARTS {
            return Err(format!("{why}, and did so {starts} times; say the same again later"));
        }
        progress.say(&format!("{why}; starting anew"));
        part.restart(facts.clone())?;
    }
    let (whole, seconds) = (human(part.len), begun.elapsed().as_secs_f64());
    part.finish()?;
    progress.say(&format!("{whole} are here; {} came in {seconds:.1} s", human(came)));
    Ok(())
}

/// Why a request gave no whole file.
enum Stop {
    Failed(Failure),
    /// What is there is no part of what the server has.
    Anew(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Failed(Failure::Final(why))
    }
}

/// One request for what is still missing.
fn attempt(
    http: &Http,
    wanted: &Wanted,
    part: &mut Part,
    progress: &mut Progress,
) -> Result<(), Stop> {
    let range = format!("bytes={}-", part.len);
    let mut headers = Vec::new();
    if part.len > 0 {
        headers.push(("Range", range.as_str()));
        headers.extend(part.facts.etag.as_deref().map(|etag| ("If-Range", etag)));
    }
    let answer = http.get(&wanted.address, &headers)?;
    let host = wanted.address.host();
    let is_page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    if is_page {
        return Err(page(&wanted.address).into());
    }
    if let Some(encoding) = answer.header("content-encoding").filter(|&how| how != "identity") {
        return Err(format!(
            "{host} sends the file compressed ({encoding}), which it was asked not to do; its bytes cannot be held to \
             their sha256"
        )
        .into());
    }
    // One that is weak may stand for other bytes; a date does where there is none.
    let strong = answer.header("etag").filter(|etag| !etag.starts_with("W/"));
    let etag = strong.or(answer.header("last-modified")).map(str::to_owned);
    let length = answer.header("content-length").and_then(|text| text.parse::<u64>().ok());
    match (answer.response.status().as_u16(), part.len) {
        (206, at) if at > 0 => {
            let range = answer.header("content-range").unwrap_or_default().to_owned();
            if !range.starts_with(&format!("bytes {at}-")) {
                return Err(Stop::Anew(format!(
                    "{host} gave {range:?} and not what comes after byte {at}"
                )));
            }
            if etag.is_some() && part.facts.etag.is_some() && etag != part.facts.etag {
                return Err(Stop::Anew(format!("the file has changed at {host}")));
            }
            let total = range.rsplit_once('/').and_then(|(_, total)| total.parse().ok());
            if total.is_some() && part.facts.size.is_some() && total != part.facts.size {
                return Err(Stop::Anew(format!("the file has another length at {host} by now")));
            }
            part.facts.size = part.facts.size.or(total);
        }
        (200, at) => {
            if at > 0 {
                let changed = etag.is_none() || etag != part.facts.etag;
                progress.say(&match changed {
                    true => format!("the file has changed at {host}; starting anew"),
                    false => format!("{host} gives no parts of files; starting anew"),
                });
            }
            if let (Some(size), Some(length)) = (wanted.size, length)
                && size != length
            {
                let why = format!("{host} sends {length} bytes of a file that has {size}");
                return Err(Failure::Again { why, after: None }.into());
            }
            part.restart(Facts {
                url: wanted.address.as_str().to_owned(),
                etag,
                size: wanted.size.or(length),
                sha256: wanted.sha256.clone().or_else(|| answer.linked.clone()),
                ..Facts::default()
            })?;
        }
        (status, at) => {
            return Err(Stop::Anew(format!(
                "{host} answers {status} to what comes after byte {at}"
            )));
        }
    }
    part.ready()?;
    progress.begin(part.len, part.facts.size);
    body(answer, wanted, part, progress)
}

/// Writes what comes.
fn body(
    answer: Answer,
    wanted: &Wanted,
    part: &mut Part,
    progress: &mut Progress,
) -> Result<(), Stop> {
    let mut from = answer.response.into_body().into_reader();
    let mut buffer = vec![0; 256 << 10];
    let (size, host) = (part.facts.size, wanted.address.host());
    let broke = |at: u64, how: &str| {
        let of = size.map(|size| format!(" of {}", human(size))).unwrap_or_default();
        let why = format!("the connection to {host} broke at {}{of}{how}", human(at));
        Stop::Failed(Failure::Again { why, after: None })
    };
    // Enough to see what it is.
    let mut filled = 0;
    loop {
        let read = match from.read(&mut buffer[filled..]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(broke(part.len, &format!(" ({error})"))),
        };
        filled += read;
        if part.len == 0 && filled < 4 && read > 0 {
            continue;
        }
        if part.len == 0 {
            sniff(&buffer[..filled], wanted)?;
        }
        let room = size.map_or(u64::MAX, |size| size - part.len);
        if filled as u64 > room {
            return Err(format!(
                "{host} sends more than the {} bytes of the file",
                part.len + room
            )
            .into());
        }
        part.append(&buffer[..filled])?;
        progress.at(part.len);
        filled = 0;
        if read == 0 {
            return match size {
                Some(size) if part.len < size => Err(broke(part.len, "")),
                _ => Ok(()),
            };
        }
    }
}

/// Whether this is how a GGUF file begins, and what it is if not.
fn sniff(start: &[u8], wanted: &Wanted) -> Result<(), String> {
    if start.starts_with(b"GGUF") {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&start[..start.len().min(200)]).trim_start().to_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<head") {
        return Err(page(&wanted.address));
    }
    let address = &wanted.address;
    Err(match text.starts_with("version https://git-lfs") {
        true => format!(
            "{address} gives what Git LFS keeps in place of a large file, and not the file; name the address that its \
             download button has"
        ),
        false => format!("{address} gives no GGUF file: it begins with {:?}", shown(start)),
    })
}

fn page(address: &Address) -> String {
    let parts: Vec<_> = address.parts().collect();
    let advice = match parts[..] {
        [_, _, "blob", ..] => "write /resolve/ instead of /blob/ in the address".to_owned(),
        [user, repo] => format!("if this is a repository of the hub, write hf:{user}/{repo}"),
        _ => "name the address that its download button has".to_owned(),
    };
    format!("{address} gives a web page and not a GGUF file; {advice}")
}

fn shown(start: &[u8]) -> String {
    String::from_utf8_lossy(&start[..start.len().min(16)]).into_owned()
}
