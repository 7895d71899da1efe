//! What is seen of a download: a bar on a terminal, elsewhere a line now and then.
use crate::cli::output::human;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const NOW_AND_THEN: Duration = Duration::from_secs(10);
const BAR: &str = "{msg} {bar:25} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left";

/// How a download is told.
pub(super) struct Progress {
    name: String,
    quiet: bool,
    bar: ProgressBar,
    total: Option<u64>,
    /// Where it began this time, and when.
    begun: (u64, Instant),
    told: Instant,
}

impl Progress {
    pub(super) fn new(name: String, quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(name.clone());
        let now = Instant::now();
        Self { name, quiet, bar, total: None, begun: (0, now), told: now }
    }

    /// A line of its own, beside the bar.
    pub(super) fn say(&self, what: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("brooklet: {}: {what}", self.name));
        }
    }

    /// From here on it goes, of so many bytes if that is known.
    pub(super) fn begin(&mut self, at: u64, total: Option<u64>) {
        self.total = total;
        self.begun = (at, Instant::now());
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(at);
        self.bar.reset_eta();
    }

    /// So far it has come.
    pub(super) fn at(&mut self, at: u64) {
        self.bar.set_position(at);
        if self.quiet || !self.bar.is_hidden() || self.told.elapsed() < NOW_AND_THEN {
            return;
        }
        self.told = Instant::now();
        let seconds = self.begun.1.elapsed().as_secs_f64();
        let rate = at.saturating_sub(self.begun.0) as f64 / seconds.max(1e-3);
        let rest = match self.total {
            Some(total) => {
                let left = total.saturating_sub(at) as f64 / rate.max(1.0);
                format!(" of {}, {}/s, {left:.0} s left", human(total), human(rate as u64))
            }
            None => format!(", {}/s", human(rate as u64)),
        };
        eprintln!("brooklet: {}: {}{rest}", self.name, human(at));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
