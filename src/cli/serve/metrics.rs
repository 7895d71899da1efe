//! What the server has done so far, as Prometheus reads it.
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters, which only grow, and what goes on now.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) prompt_micros: AtomicU64,
    pub(super) predicted_tokens: AtomicU64,
    pub(super) predicted_micros: AtomicU64,
    pub(super) evicted_tokens: AtomicU64,
    pub(super) forgotten_messages: AtomicU64,
    pub(super) processing: AtomicU64,
    pub(super) deferred: AtomicU64,
    pub(super) longest: AtomicU64,
    pub(super) decodes: AtomicU64,
    /// Streams that were busy, summed over all decodes.
    pub(super) busy: AtomicU64,
    /// Streams that sockets have for themselves.
    pub(super) held: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// Counts.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

/// Counts time.
pub(super) fn spend(counter: &AtomicU64, time: Duration) {
    add(counter, time.as_micros() as u64);
}

impl Metrics {
    /// A token more, beside those of so many streams.
    pub(super) fn decoded(&self, position: u64) {
        add(&self.decodes, 1);
        add(&self.busy, self.processing.load(Relaxed));
        self.longest.fetch_max(position, Relaxed);
    }

    /// All of them, in Prometheus' text form.
    pub(super) fn text(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let seconds = |micros: &AtomicU64| get(micros) / 1e6;
        let rate = |count: &AtomicU64, micros: &AtomicU64| match seconds(micros) {
            0.0 => 0.0,
            time => get(count) / time,
        };
        let share = |sum: &AtomicU64, of: &AtomicU64| get(sum) / get(of).max(1.0);
        let all = [
            (
                "prompt_tokens_total",
                "counter",
                "Tokens of prompts that were fed.",
                get(&self.prompt_tokens),
            ),
            (
                "prompt_cached_tokens_total",
                "counter",
                "Tokens of prompts that a stream held already.",
                get(&self.cached_tokens),
            ),
            (
                "prompt_seconds_total",
                "counter",
                "Time in which prompts were fed.",
                seconds(&self.prompt_micros),
            ),
            (
                "prompt_tokens_seconds",
                "gauge",
                "Tokens of prompts fed a second.",
                rate(&self.prompt_tokens, &self.prompt_micros),
            ),
            ("tokens_predicted_total", "counter", "Tokens generated.", get(&self.predicted_tokens)),
            (
                "tokens_predicted_seconds_total",
                "counter",
                "Time in which tokens were generated.",
                seconds(&self.predicted_micros),
            ),
            (
                "predicted_tokens_seconds",
                "gauge",
                "Tokens generated a second.",
                rate(&self.predicted_tokens, &self.predicted_micros),
            ),
            ("requests_processing", "gauge", "Answers under way.", get(&self.processing)),
            ("requests_deferred", "gauge", "Answers that wait for a stream.", get(&self.deferred)),
            ("streams_held", "gauge", "Streams that sockets have for themselves.", get(&self.held)),
            ("n_tokens_max", "counter", "Tokens of the longest stream.", get(&self.longest)),
            (
                "n_decode_total",
                "counter",
                "Tokens that were waited for, of whichever stream.",
                get(&self.decodes),
            ),
            (
                "n_busy_slots_per_decode",
                "gauge",
                "Streams that were busy at a token, on average.",
                share(&self.busy, &self.decodes),
            ),
            (
                "evicted_tokens_total",
                "counter",
                "Tokens that have left the window of a stream.",
                get(&self.evicted_tokens),
            ),
            (
                "forgotten_messages_total",
                "counter",
                "Messages that have left the window, or were left out.",
                get(&self.forgotten_messages),
            ),
            ("requests_total", "counter", "Answers that were asked for.", get(&self.requests)),
            (
                "requests_cancelled_total",
                "counter",
                "Answers whose client has left.",
                get(&self.cancelled),
            ),
            (
                "requests_refused_total",
                "counter",
                "Answers refused because the queue was full.",
                get(&self.refused),
            ),
            (
                "requests_failed_total",
                "counter",
                "Answers that ended in an error.",
                get(&self.failed),
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in all {
            let name = format!("brooklet:{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}
