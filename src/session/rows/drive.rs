//! Whoever leads streams on: which of them go, their steps into the device, and what came of them.
use super::{Given, Rows};
use crate::gpu::{Pieces, Program, Readback, Tensor};
use crate::model::{Pass, reduce};
use crate::ops::{FRAME, FRAME_ROW, NO_TOKEN};
use crate::session::Portions;
use crate::session::alone::{Logprobs, held};
use crate::session::pace::{MOST_STEPS, Steps};
use crate::session::submit::count_cache;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use web_time::Instant;

/// A stream and which of its seats: those of a pass, by its rows.
type Seats = Vec<(usize, u64)>;

/// Steps that are taken next.
struct Next {
    seats: Seats,
    steps: usize,
    /// Of what comes next is asked, or told, between one step and the other.
    asks: bool,
}

/// Steps that were submitted, and whose tokens were not read yet.
struct Flight {
    next: Next,
    back: usize,
    /// Logits that somebody wants to see: the row, how many of the likeliest, and where they are read.
    watched: Vec<(usize, usize, Arc<Readback>)>,
    submissions: usize,
    pass: usize,
}

/// What whoever leads needs.
pub(super) struct Driver {
    /// One that is read, and one after it that the device has meanwhile.
    flights: VecDeque<Flight>,
    back: usize,
    steps: Steps,
    /// Of each pass.
    portions: Vec<Portions>,
    last_read: Option<Instant>,
    words: Vec<u32>,
}

impl Driver {
    pub(super) fn new(steps: Steps, portions: Vec<Portions>, words: usize) -> Self {
        Self {
            flights: VecDeque::new(),
            back: 0,
            steps,
            portions,
            last_read: None,
            words: vec![0; words],
        }
    }
}

impl Rows {
    /// Those that the next steps are of, and how many steps that is.
    fn next_steps(&self, driver: &Driver) -> Next {
        let seats = self.seats();
        let goes = || seats.iter().enumerate().filter(|(_, seat)| seat.goes());
        let pinned = goes().filter_map(|(_, seat)| seat.pinned).min();
        let room = goes().map(|(_, seat)| seat.room).min().unwrap_or(0);
        let asks = goes().any(|(_, seat)| seat.asks());
        let most = if asks { 1 } else { pinned.unwrap_or(driver.steps.steps()) };
        let steps = (most as u64).min(room) as usize;
        let spare = self.cache.spare(u64::MAX);
        // One that nobody reads is led no further than it can be taken back.
        let rows = goes().filter(|(_, seat)| {
            let ahead = seat.submitted - seat.given;
            let read_soon = seat.unread.len() < 2 * steps.max(1);
            read_soon && ahead + steps as u64 <= (spare / 2).max(2)
        });
        let rows = rows.map(|(stream, seat)| (stream, seat.serial)).collect();
        Next { seats: rows, steps, asks }
    }

    /// Submits the next steps of all who wait, or reads those that are under way.
    pub(super) async fn drive(&self, driver: &mut Driver) -> Result<()> {
        let next = self.next_steps(driver);
        let asked = Instant::now();
        let alike =
            |flight: &Flight| flight.next.seats == next.seats && !next.asks && !flight.next.asks;
        let goes_on = driver.flights.back().is_none_or(alike);
        if next.steps > 0 && !next.seats.is_empty() && goes_on && driver.flights.len() < 2 {
            self.submit(driver, next);
            // Where nothing else is under way, the device should have something to do while this is read.
            if driver.flights.len() < 2 {
                return Ok(());
            }
        }
        let Some(Flight { next, back, watched, .. }) = driver.flights.front() else {
            let what = "a stream waits for steps that nobody takes; generate from it anew";
            return Err(Error::Usage(what.into()));
        };
        #[cfg(test)]
        crate::tests::support::pause().await;
        // Whoever drops this leaves all of it to be read again.
        let (gpu, count) = (&*self.model.gpu, next.seats.len() * MOST_STEPS);
        self.back[*back].read(gpu, &mut driver.words[..count]).await?;
        let mut seen: Vec<_> = next.seats.iter().map(|_| None).collect();
        let mut logits = vec![0.0; if watched.is_empty() { 0 } else { self.vocab() }];
        for (row, top, back) in watched {
            back.read(gpu, &mut logits).await?;
            seen[*row] = Some(Logprobs::new(&logits, driver.words[row * MOST_STEPS], *top));
        }
        let Some(flight) = driver.flights.pop_front() else { return Ok(()) };
        self.hand_out(&flight.next, &driver.words, seen);
        self.learn(driver, &flight, asked);
        Ok(())
    }

    fn hand_out(&self, next: &Next, words: &[u32], seen: Vec<Option<Logprobs>>) {
        let mut seats = self.seats();
        for (row, (&(stream, serial), seen)) in next.seats.iter().zip(seen).enumerate() {
            let seat = &mut seats[stream];
            // Somebody else may have the stream by now.
            if seat.serial != serial || !seat.goes_on() {
                continue;
            }
            let chosen = &words[row * MOST_STEPS..][..next.steps];
            let found = chosen.iter().take_while(|&&token| token != NO_TOKEN).count();
            seat.none_left |= found < chosen.len();
            seat.token = chosen[found.max(1) - 1];
            let given = chosen[..found].iter().map(|&token| Given { token, ..Given::default() });
            seat.unread.extend(given);
            let Some(last) = seat.unread.back_mut().filter(|_| found > 0) else { continue };
            last.seen = seen;
            if let Some(rules) = &seat.rules {
                match held(rules).took_ahead(last.token, seat.room) {
                    Ok(forced) => last.forced = forced,
                    Err(error) => {
                        seat.unread.pop_back();
                        seat.failed = Some(error);
                    }
                }
            }
        }
    }

    fn learn(&self, driver: &mut Driver, flight: &Flight, asked: Instant) {
        let now = Instant::now();
        let Some(before) = driver.last_read.replace(now) else { return };
        let (time, elsewhere) = (now - before, asked.saturating_duration_since(before));
        if 2 * elsewhere > time {
            return;
        }
        let Next { steps, asks, .. } = &flight.next;
        if !asks {
            driver.steps.took(*steps, time);
        }
        let (pass, choices) = &self.passes[flight.pass];
        let all = steps * Pieces::of(&[&pass.body, &pass.head, choices]).count();
        driver.portions[flight.pass].took(all as f64, flight.submissions, time);
    }

    /// Submits the steps that come next.
    fn submit(&self, driver: &mut Driver, next: Next) {
        let gpu = &*self.model.gpu;
        let Next { seats, steps, asks } = &next;
        let (fresh, count) = (driver.flights.is_empty(), seats.len());
        if fresh {
            driver.last_read = None;
        }
        self.write(driver, seats, fresh);
        let fits = |(pass, _): &(Pass, Program)| pass.act.tokens.shape[0] >= count;
        let at = self.passes.iter().position(fits).unwrap_or(0);
        let (pass, choices) = &self.passes[at];
        let (chosen, mut watched) = ((&self.chosen, &self.back[driver.back]), Vec::new());
        let submissions = match asks {
            false => {
                let programs = [&pass.body, &pass.head, choices];
                driver.portions[at].submit(gpu, *steps, &programs, &[chosen])
            }
            true => {
                let programs = [&pass.body, &pass.head];
                let submissions = driver.portions[at].submit(gpu, 1, &programs, &[]);
                // The device is busy with it while the rules are asked.
                watched = self.ask(seats);
                let logits: Vec<_> = watched.iter().map(|(row, ..)| self.logits_of(*row)).collect();
                let logits = logits.iter().zip(watched.iter().map(|(.., back)| &**back));
                gpu.run(&[choices], &[chosen].into_iter().chain(logits).collect::<Vec<_>>());
                submissions + 1
            }
        };
        let mut all_seats = self.seats();
        for &(stream, _) in seats {
            let seat = &mut all_seats[stream];
            let place = seat.fed + seat.submitted;
            count_cache(gpu, (&self.kernels, &self.first), place, *steps as u64, 1);
            seat.submitted += *steps as u64;
            seat.room = seat.room.saturating_sub(*steps as u64);
        }
        let back = driver.back;
        driver.back = 1 - back;
        driver.flights.push_back(Flight { next, back, watched, submissions, pass: at });
    }

    /// Tells the device what may not come next in each row that has rules; gives those whose logits are read.
    fn ask(&self, rows: &Seats) -> Vec<(usize, usize, Arc<Readback>)> {
        let (mut seats, mut watched) = (self.seats(), Vec::new());
        for (row, &(stream, serial)) in rows.iter().enumerate() {
            let seat = &mut seats[stream];
            if seat.serial != serial || !seat.goes_on() {
                continue;
            }
            watched.extend(seat.watch.iter().map(|(top, back)| (row, *top, back.clone())));
            let Some(rules) = &seat.rules else { continue };
            let banned = &self.draws.banned;
            match held(rules).ask() {
                Ok(bits) => banned.write(&self.model.gpu, stream * banned.shape[1], bits),
                Err(error) => seat.failed = Some(error),
            }
        }
        watched
    }

    fn vocab(&self) -> usize {
        self.model.config.n_vocab
    }

    fn logits_of(&self, row: usize) -> Tensor {
        self.logits.view("act.row_logits", row, &[1, self.vocab()])
    }

    /// Tells the device where each row is; of fresh ones also what it is fed.
    fn write(&self, driver: &mut Driver, rows: &Seats, fresh: bool) {
        let (gpu, seats) = (&*self.model.gpu, self.seats());
        let count = rows.len() * FRAME_ROW;
        let words = &mut driver.words[..count];
        words.fill(0);
        for (row, &(stream, _)) in rows.iter().enumerate() {
            let seat = &seats[stream];
            let place = reduce(seat.fed + seat.submitted, self.cache.longest());
            let kept = u32::from(seat.sinks_kept);
            let frame = [place, rows.len() as u32, kept | (stream as u32) << 1, 0];
            words[row * FRAME_ROW..][..FRAME].copy_from_slice(&frame);
        }
        if let Some(frames) = &self.act.frames {
            frames.write(gpu, 0, words);
        }
        if fresh {
            words.fill(0);
            for (row, &(stream, _)) in rows.iter().enumerate() {
                words[row * FRAME_ROW] = seats[stream].token;
            }
            self.act.tokens.write(gpu, 0, words);
        }
    }
}
