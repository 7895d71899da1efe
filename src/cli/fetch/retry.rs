//! What is worth another try, how often, and after how long.
use std::time::Duration;

/// So often something is tried before it counts as failed.
const TRIES: u32 = 6;
/// The first wait is this part of how long a server may say nothing; each further one is twice as long. Together they
/// are half of that.
const FIRST_WAIT: u32 = 60;

/// Why something did not work.
pub(super) enum Failure {
    /// It may work in a moment.
    Again {
        why: String,
        /// So long the server wants to be left alone.
        after: Option<Duration>,
    },
    /// It will not work however often it is tried.
    Final(String),
}

/// How often something has failed.
pub(super) struct Backoff {
    failures: u32,
    first: Duration,
}

impl Backoff {
    pub(super) fn new(patience: Duration) -> Self {
        Self { failures: 0, first: patience / FIRST_WAIT }
    }

    /// Waits before another try and says so through `tell`, or gives up with a sentence.
    pub(super) fn wait(&mut self, failure: Failure, tell: impl Fn(&str)) -> Result<(), String> {
        let (why, after) = match failure {
            Failure::Final(why) => return Err(why),
            Failure::Again { why, after } => (why, after),
        };
        self.failures += 1;
        if self.failures >= TRIES {
            let tries = self.failures;
            return Err(format!("{why}, and did so {tries} times; say the same again later"));
        }
        let wait = after.unwrap_or(self.first * 2u32.pow(self.failures - 1));
        tell(&format!("{why}; trying again in {:.1} s", wait.as_secs_f64()));
        std::thread::sleep(wait);
        Ok(())
    }

    /// Something came: what failed before that does not count.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Tries until it works or is given up.
pub(super) fn retry<T>(
    patience: Duration,
    tell: impl Fn(&str),
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, String> {
    let mut backoff = Backoff::new(patience);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => backoff.wait(failure, &tell)?,
        }
    }
}
