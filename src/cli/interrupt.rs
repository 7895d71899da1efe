//! Ctrl-C: the first one ends the work with what it has come to so far, any other at once.
use brooklet::session::Session;
use brooklet::{Error, Result};
use std::io::Error as IoError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// What Ctrl-C means now.
static STAGE: AtomicU8 = AtomicU8::new(ENDS);
const ENDS: u8 = 0;
const ASKS: u8 = 1;
const PRESSED: u8 = 2;

/// What there is to say when the process ends.
static LAST_WORD: Mutex<Option<String>> = Mutex::new(None);

/// From now on Ctrl-C is heard. It ends the process until [`only_asks`] is called. Later calls change nothing.
pub(crate) fn watch() -> Result<()> {
    static WATCHED: Once = Once::new();
    let mut result = Ok(());
    WATCHED.call_once(|| result = ctrlc::set_handler(heard));
    result.map_err(|e| Error::Io { path: "watching for Ctrl-C".into(), source: IoError::other(e) })
}

fn heard() {
    if STAGE.swap(PRESSED, Ordering::Relaxed) == ASKS {
        return;
    }
    match LAST_WORD.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(word) => eprintln!("\nbrooklet: stopped; {word}"),
        None => eprintln!("brooklet: stopped"),
    }
    std::process::exit(1);
}

/// What Ctrl-C says from now on when it ends the process.
pub(crate) fn ends_saying(word: Option<String>) {
    *LAST_WORD.lock().unwrap_or_else(PoisonError::into_inner) = word;
}

/// From now on the first Ctrl-C only asks the work to end. False when it has been pressed already.
pub(crate) fn only_asks() -> bool {
    STAGE.swap(ASKS, Ordering::Relaxed) != PRESSED
}

/// From now on Ctrl-C ends the process again.
pub(crate) fn ends() {
    STAGE.store(ENDS, Ordering::Relaxed);
}

/// Whether the work should end.
pub(crate) fn pressed() -> bool {
    STAGE.load(Ordering::Relaxed) == PRESSED
}

/// Prefill until Ctrl-C; gives how many tokens were fed.
pub(crate) async fn feed(session: &mut Session, ids: &[u32]) -> Result<usize> {
    session.feed_while(ids, || !pressed()).await
}
