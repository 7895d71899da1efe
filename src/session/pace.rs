//! How many steps go into one submission, found out from what submissions take. Numbers alone: whoever asks has the clock.
use std::time::Duration;

/// Steps that are submitted together at most.
pub(super) const MOST_STEPS: usize = 64;
/// Numbers of steps that are tried.
const LADDER: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_STEPS];
/// Of what a longer submission could gain at best, the share from which on it is kept, and the share that needs no
/// second look.
const WORTH: f64 = 0.25;
const CLEAR: f64 = 0.6;
/// A submission of so many milliseconds wastes nothing worth speaking of: there, a longer one need only not be slower.
const UNFELT: f64 = 20.0;
const NOT_SLOWER: f64 = -0.1;
/// Reads after which a trial is judged.
const ENOUGH: u32 = 3;
/// Reads until another number is tried, at least and at most: it doubles with every trial that came to nothing.
const HOLD: [u32; 2] = [4, 256];
/// How much of a new time goes into the mean.
const SMOOTH: f64 = 0.3;
/// No driver is known that waits longer, in milliseconds: beyond it, the device is what is slow.
const LONGEST_WAIT: f64 = 150.0;

/// How far the device may work ahead of whoever reads a stream: what it is ahead is made in vain when the stream is
/// ended. The first tokens come as soon either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// About a tenth of a second, for somebody who looks on and may stop it at any token.
    #[default]
    Interactive,
    /// About half a second, for programs that take a stream as it comes.
    Throughput,
}

impl Pace {
    /// Milliseconds of the device's own time that are read at once. As much again is under way meanwhile.
    fn limit(self) -> f64 {
        match self {
            Self::Interactive => 60.0,
            Self::Throughput => 250.0,
        }
    }
}

/// How many steps go into one submission: as few as give the most tokens a second. A submission of n steps takes
/// `wait + n step`, of which the wait is the driver's; only a comparison of two lengths tells them apart.
pub(super) struct Steps {
    pace: Pace,
    /// Places in [`LADDER`]: the highest that there is room for, and the present one.
    top: usize,
    at: usize,
    /// The place that the present one is tried against.
    from: Option<usize>,
    /// Mean milliseconds of each.
    took: [Option<f64>; LADDER.len()],
    /// Reads since the present one was chosen, and reads until another is tried.
    reads: u32,
    hold: u32,
    /// Which way the next trial goes.
    up: bool,
}

impl Steps {
    /// One, at first; `most` at most.
    pub(super) fn new(pace: Pace, most: usize) -> Self {
        let top = LADDER.iter().rposition(|&steps| steps <= most).unwrap_or(0);
        let took = [None; LADDER.len()];
        Self { pace, top, at: 0, from: None, took, reads: 0, hold: 1, up: true }
    }

    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.hold = 1;
    }

    /// Of the next submission.
    pub(super) fn steps(&self) -> usize {
        LADDER[self.at]
    }

    /// What was read, and how long after what was read before, as long as there was something to do all the time.
    pub(super) fn took(&mut self, steps: usize, time: Duration) {
        let Some(at) = LADDER.iter().position(|&n| n == steps) else { return };
        let (ms, mean) = (time.as_secs_f64() * 1e3, &mut self.took[at]);
        *mean = Some(mean.map_or(ms, |mean| mean + SMOOTH * (ms - mean)));
        // It may have been under way when another number was chosen.
        if at != self.at {
            return;
        }
        self.reads += 1;
        match self.from {
            Some(from) => self.judge(from),
            None if self.at > 0 && self.is_too_long(self.at) => {
                self.go(self.at - 1, HOLD[0]);
                self.took[self.at] = None;
            }
            None if self.reads >= self.hold => self.try_another(),
            None => {}
        }
    }

    /// Milliseconds that the device takes for a step by itself, as far as two lengths have told.
    pub(super) fn step(&self) -> Option<f64> {
        let (n, ms) = (LADDER[self.at], self.took[self.at]?);
        let seen = |&at: &usize| self.took[at].is_some();
        let apart = |at: &usize| 3 * n.min(LADDER[*at]) <= 2 * n.max(LADDER[*at]);
        let other = (0..self.at).rev().chain(self.at + 1..=self.top).filter(apart).find(seen)?;
        let more = (ms - self.took[other]?) / (n as f64 - LADDER[other] as f64);
        Some(more.clamp(0.0, ms / n as f64))
    }

    fn is_too_long(&self, at: usize) -> bool {
        let (Some(ms), Some(step)) = (self.took[self.at], self.step()) else {
            // Nothing to compare with.
            return at > self.at && self.took[self.at].is_some_and(|ms| ms > LONGEST_WAIT);
        };
        // What is done while the host has to wait anyway is not in vain.
        let wait = ms - step * LADDER[self.at] as f64;
        step * LADDER[at] as f64 > self.pace.limit().max(1.2 * wait)
    }

    /// How much of what could be gained by the longer of two is gained: all where the wait alone takes time, nothing
    /// where the device does.
    fn gain(&self, short: usize, long: usize) -> f64 {
        let (Some(less), Some(more)) = (self.took[short], self.took[long]) else { return 0.0 };
        let times = LADDER[long] as f64 / LADDER[short] as f64;
        (times * less / more.max(1e-6) - 1.0) / (times - 1.0)
    }

    fn go(&mut self, at: usize, hold: u32) {
        (self.at, self.from, self.reads, self.hold) = (at, None, 0, hold);
    }

    fn judge(&mut self, from: usize) {
        let (short, long) = (from.min(self.at), from.max(self.at));
        let gain = self.gain(short, long);
        let longer = self.at == long;
        if self.reads < ENOUGH && !(longer && gain > CLEAR) {
            return;
        }
        let unfelt = self.took[long].is_some_and(|ms| ms <= UNFELT);
        let worth = if unfelt { NOT_SLOWER } else { WORTH };
        match longer {
            true if gain >= worth && !self.is_too_long(self.at) => {
                self.go(self.at, 1);
                self.up = true;
                if gain > CLEAR {
                    self.try_another();
                }
            }
            false if gain < worth => self.go(self.at, 1),
            _ => self.go(from, (2 * self.hold).clamp(HOLD[0], HOLD[1])),
        }
    }

    /// Twice as many at first, then those above and below in turn.
    fn try_another(&mut self) {
        let first = (self.at..=self.top).skip(1).all(|at| self.took[at].is_none());
        let next = (self.at + if first && self.at > 0 { 2 } else { 1 }).min(self.top);
        let up = next > self.at && !self.is_too_long(next);
        let down = self.at > 0;
        self.reads = 0;
        let to = match (self.up, up, down) {
            (true, true, _) | (false, true, false) => next,
            (_, _, true) => self.at - 1,
            _ => return,
        };
        self.up = to < self.at;
        (self.from, self.took[to]) = (Some(self.at), None);
        self.at = to;
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_STEPS, Pace, Steps};
    use std::time::Duration;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// A device with a clock of its own, as a generation uses it: one submission is made before another is read.
    struct Device {
        now: f64,
        /// When it has done what was submitted.
        free: f64,
        step: f64,
        /// From the end of the work to its being heard of.
        heard: fn(done: f64, asked: f64) -> f64,
        seed: u64,
        noise: f64,
    }

    /// As Firefox hears of it when nobody pokes: every tenth of a second.
    fn polled(done: f64, asked: f64) -> f64 {
        (done.max(asked + 1.0) / 100.0).ceil() * 100.0
    }

    fn at_once(done: f64, asked: f64) -> f64 {
        done.max(asked) + 0.4
    }

    impl Device {
        fn new(step: f64, heard: fn(f64, f64) -> f64) -> Self {
            Self { now: 0.0, free: 0.0, step, heard, seed: 1, noise: 0.0 }
        }

        fn submit(&mut self, steps: usize) -> f64 {
            self.seed =
                self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let noise = (self.seed >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
            let took = steps as f64 * self.step * (1.0 + self.noise * noise);
            self.free = self.free.max(self.now) + took;
            self.free
        }

        /// Tokens a second and mean steps of so many reads.
        fn run(&mut self, steps: &mut Steps, reads: usize) -> (f64, f64) {
            let (start, mut tokens) = (self.now, 0);
            let mut before = (steps.steps(), self.submit(steps.steps()));
            for _ in 0..reads {
                let next = (steps.steps(), self.submit(steps.steps()));
                let then = self.now;
                self.now = (self.heard)(before.1, self.now);
                steps.took(before.0, ms(self.now - then));
                tokens += before.0;
                before = next;
            }
            (1e3 * tokens as f64 / (self.now - start), tokens as f64 / reads as f64)
        }
    }

    #[test]
    fn a_fast_device_behind_slow_polls_is_given_many_steps() {
        let mut device = Device::new(0.2, polled);
        let mut steps = Steps::new(Pace::Interactive, MOST_STEPS);
        device.run(&mut steps, 12);
        let (rate, _) = device.run(&mut steps, 50);
        assert!(rate > 550.0, "{rate}");
        // As few as there is room for.
        let mut steps = Steps::new(Pace::Interactive, 17);
        device.run(&mut steps, 12);
        let (rate, mean) = device.run(&mut steps, 50);
        assert!(rate > 145.0 && mean <= 16.0, "{rate}, {mean}");
    }

    #[test]
    fn a_device_is_what_bounds_a_stream_behind_slow_polls() {
        for (step, pace) in
            [(5.0, Pace::Interactive), (5.0, Pace::Throughput), (12.0, Pace::Throughput)]
        {
            let mut device = Device::new(step, polled);
            let mut steps = Steps::new(pace, MOST_STEPS);
            device.run(&mut steps, 60);
            let (rate, mean) = device.run(&mut steps, 200);
            assert!(rate > 0.85 * 1e3 / step, "{step} {pace:?}: {rate} by {mean}");
        }
    }

    #[test]
    fn a_slow_device_is_given_no_more_than_it_is_worth() {
        for pace in [Pace::Interactive, Pace::Throughput] {
            for step in [25.0, 40.0, 400.0] {
                let mut device = Device::new(step, at_once);
                let mut steps = Steps::new(pace, MOST_STEPS);
                device.run(&mut steps, 20);
                let (rate, mean) = device.run(&mut steps, 100);
                assert!(rate > 0.95 * 1e3 / step, "{step} {pace:?}: {rate}");
                assert!(mean < 1.2, "{step} {pace:?}: {mean}");
            }
        }
    }

    #[test]
    fn noise_does_not_lead_a_stream_far_ahead() {
        for seed in 1..20 {
            let mut device = Device { seed, noise: 0.5, ..Device::new(3.0, at_once) };
            let mut steps = Steps::new(Pace::Interactive, MOST_STEPS);
            device.run(&mut steps, 100);
            let (rate, mean) = device.run(&mut steps, 400);
            assert!(rate > 0.8 * 1e3 / 3.0, "{seed}: {rate}");
            assert!(2.0 * mean * 3.0 < 120.0, "{seed}: {mean}");
        }
    }

    #[test]
    fn a_device_that_changes_its_speed_is_followed() {
        let mut device = Device::new(0.3, polled);
        let mut steps = Steps::new(Pace::Interactive, MOST_STEPS);
        device.run(&mut steps, 40);
        device.step = 20.0;
        device.run(&mut steps, 20);
        let (rate, mean) = device.run(&mut steps, 50);
        assert!(mean <= 8.0 && rate > 40.0, "{mean}, {rate}");
        device.step = 0.3;
        device.run(&mut steps, 300);
        let (rate, _) = device.run(&mut steps, 50);
        assert!(rate > 300.0, "{rate}");
    }

    #[test]
    fn where_nobody_feels_it_several_steps_go_together() {
        let mut device = Device { noise: 0.2, ..Device::new(1.0, at_once) };
        let mut steps = Steps::new(Pace::Interactive, MOST_STEPS);
        device.run(&mut steps, 60);
        let (_, mean) = device.run(&mut steps, 300);
        assert!((8.0..40.0).contains(&mean), "{mean}");
    }

    #[test]
    fn where_there_is_room_for_one_step_it_is_one() {
        let mut device = Device::new(0.1, polled);
        let mut steps = Steps::new(Pace::Throughput, 1);
        assert_eq!(device.run(&mut steps, 50).1, 1.0);
    }
}
