//! Steps that several streams take together: a row of a pass each, so that weights are read once for all. What a stream is
//! given does not depend on the others. Whoever waits for a token first leads all of them on.
use super::pace::{MOST_STEPS, Pace, Steps};
use super::submit::{WITHIN, count_cache};
use super::{Choice, Portions, Session};
use crate::gpu::{Program, Readback, Tensor};
use crate::model::{
    Activations, Cache, CacheSettings, Kernels, Model, Pass, Policy, Tokens, reduce,
};
use crate::ops::{FRAME, FRAME_ROW, NO_TOKEN};
use crate::{Error, Result};
use futures_util::lock::Mutex as Turn;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use web_time::Instant;

/// The most streams that share their passes.
pub(super) const MOST_STREAMS: usize = 256;

/// What streams share: their caches, and passes over one token of each.
pub(super) struct Rows {
    model: Arc<Model>,
    kernels: Arc<Kernels>,
    cache: Cache,
    /// The share of the first, which the others' are like.
    first: Cache,
    /// By the rows that they take, fewest first.
    passes: Vec<Pass>,
    act: Activations, // of R rows
    logits: Tensor,   // [R, V], each row where a binding may begin
    chosen: Tensor,   // [R, MOST_STEPS]
    back: [Readback; 2],
    seats: Mutex<Vec<Seat>>,
    driver: Turn<Driver>,
}

/// A stream that is led on.
#[derive(Default)]
struct Seat {
    /// Which of those that have had this stream it is.
    serial: u64,
    taken: bool,
    /// Nobody waits for its tokens any more.
    left: bool,
    /// The token that is fed next, as far as is known here, and how many were fed when it was.
    token: u32,
    fed: u64,
    sinks_kept: bool,
    /// Steps that were submitted, and of these those whose tokens were given out.
    submitted: u64,
    given: u64,
    unread: VecDeque<u32>,
    none_left: bool,
    /// Tokens that the cache has room for, where it ends.
    room: u64,
    pinned: Option<usize>,
    choice: Option<Arc<Choice>>,
}

/// A stream and which of its seats: those of a pass, by its rows.
type Seats = Vec<(usize, u64)>;

/// Steps that were submitted, and whose tokens were not read yet.
struct Flight {
    seats: Seats,
    steps: usize,
    back: usize,
    submissions: usize,
    pass: usize,
}

/// What whoever leads needs.
struct Driver {
    /// One that is read, and one after it that the device has meanwhile.
    flights: VecDeque<Flight>,
    back: usize,
    steps: Steps,
    /// Of each pass.
    portions: Vec<Portions>,
    /// What chooses in each row, and for whom.
    choices: Vec<Option<((usize, u64), Program)>>,
    last_read: Option<Instant>,
    words: Vec<u32>,
}

/// What is joined by: see [`Rows::join`].
pub(super) struct Join {
    pub(super) token: u32,
    pub(super) fed: u64,
    pub(super) sinks_kept: bool,
    pub(super) room: u64,
    pub(super) pinned: Option<usize>,
    pub(super) choice: Arc<Choice>,
}

impl Rows {
    /// Makes room for so many streams. An error where a model or a policy needs a pass of its own.
    pub(super) fn new(
        model: Arc<Model>,
        kernels: Arc<Kernels>,
        settings: CacheSettings,
        streams: usize,
    ) -> Result<Self> {
        let (gpu, c) = (&*model.gpu, &model.config);
        let cache = Cache::of_streams(gpu, c, settings, &model.weights.divisors, streams)?;
        let act = Activations::new(gpu, &model, &cache, Tokens::Rows(streams))?;
        let width = c.n_vocab.next_multiple_of(FRAME_ROW);
        let logits = Tensor::zeros(gpu, "act.rows_logits", &[streams, width])?;
        let mut counts: Vec<_> = (0..).map(|i| 1 << i).take_while(|&n| n < streams).collect();
        counts.push(streams);
        let passes = counts.into_iter().map(|rows| {
            let logits = logits.view("act.rows_logits", 0, &[rows, width]);
            Pass::new(&model, &kernels, &cache, act.first(gpu, c, rows), &logits)
        });
        let passes = passes.collect::<Result<Vec<_>>>()?;
        let words = streams * MOST_STEPS;
        let most = (cache.spare(u64::MAX) as usize / 4 + 1).clamp(1, MOST_STEPS);
        let driver = Driver {
            flights: VecDeque::new(),
            back: 0,
            steps: Steps::new(Pace::default(), most),
            portions: passes.iter().map(|_| Portions::new(WITHIN)).collect(),
            choices: (0..streams).map(|_| None).collect(),
            last_read: None,
            words: vec![0; words],
        };
        let seats = (0..streams).map(|_| Seat::default()).collect();
        Ok(Self {
            act,
            passes,
            logits,
            chosen: Tensor::zeros(gpu, "rows_chosen", &[streams, MOST_STEPS])?,
            back: [Readback::new(gpu, words)?, Readback::new(gpu, words)?],
            seats: Mutex::new(seats),
            driver: Turn::new(driver),
            model,
            kernels,
            first: cache.share(0),
            cache,
        })
    }

    /// The cache of one of the streams.
    pub(super) fn share(&self, stream: usize) -> Cache {
        self.cache.share(stream)
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream's seat for whoever waits for its tokens; gives which of its seats that is.
    pub(super) fn join(&self, stream: usize, join: Join) -> u64 {
        let Join { token, fed, sinks_kept, room, pinned, choice } = join;
        let seat = &mut self.seats()[stream];
        let serial = seat.serial + 1;
        let choice = Some(choice);
        let taken = true;
        *seat =
            Seat { serial, taken, token, fed, sinks_kept, room, pinned, choice, ..Seat::default() };
        serial
    }

    /// Ends that a stream is led on, if it is: gives the tokens that the device was fed beyond those given out before the last.
    pub(super) fn leave(&self, stream: usize) -> Option<u64> {
        let seat = &mut self.seats()[stream];
        let led = seat.taken.then(|| seat.submitted - seat.given);
        let serial = seat.serial + 1;
        *seat = Seat { serial, ..Seat::default() };
        led
    }

    /// The same of one that goes on.
    fn beyond(&self, stream: usize) -> u64 {
        let seat = &self.seats()[stream];
        seat.submitted - seat.given
    }

    /// Nobody waits any more for what this seat is given: its row is free from the next step on.
    pub(super) fn abandon(&self, stream: usize, serial: u64) {
        let seat = &mut self.seats()[stream];
        if seat.serial == serial {
            (seat.left, seat.choice) = (true, None);
        }
    }

    /// The next token of a stream; none where the device has found none to choose.
    pub(super) async fn next(&self, stream: usize, serial: u64) -> Result<Option<u32>> {
        loop {
            if let Some(given) = self.given(stream, serial)? {
                return Ok(given);
            }
            let mut driver = self.driver.lock().await;
            // Whoever had it may have led this stream on, too.
            if self.has_some(stream) {
                continue;
            }
            self.drive(&mut driver).await?;
        }
    }

    fn has_some(&self, stream: usize) -> bool {
        let seat = &self.seats()[stream];
        seat.none_left || !seat.unread.is_empty()
    }

    fn given(&self, stream: usize, serial: u64) -> Result<Option<Option<u32>>> {
        let seat = &mut self.seats()[stream];
        if seat.serial != serial || !seat.taken {
            let what = "a stream was led on by two at once; generate from it anew";
            return Err(Error::Usage(what.into()));
        }
        Ok(match seat.unread.pop_front() {
            Some(token) => {
                seat.given += 1;
                Some(Some(token))
            }
            None if seat.none_left => Some(None),
            None => None,
        })
    }

    /// Those that the next steps are of, and how many steps that is.
    fn next_steps(&self, driver: &Driver) -> (Seats, usize) {
        let seats = self.seats();
        let most = driver.steps.steps();
        let goes = |seat: &&Seat| seat.taken && !seat.left && !seat.none_left && seat.room > 0;
        let pinned = seats.iter().filter(goes).filter_map(|seat| seat.pinned).min();
        let room = seats.iter().filter(goes).map(|seat| seat.room).min().unwrap_or(0);
        let steps = (pinned.unwrap_or(most) as u64).min(room) as usize;
        let spare = self.cache.spare(u64::MAX);
        // One that nobody reads is led no further than it can be taken back.
        let ahead = |seat: &Seat| seat.submitted - seat.given;
        let reads = |seat: &Seat| {
            let read_soon = seat.unread.len() < 2 * steps.max(1);
            read_soon && ahead(seat) + steps as u64 <= (spare / 2).max(2)
        };
        let rows = seats.iter().enumerate().filter(|(_, seat)| goes(seat) && reads(seat));
        (rows.map(|(stream, seat)| (stream, seat.serial)).collect(), steps)
    }

    /// Submits the next steps of all who wait, or reads those that are under way.
    async fn drive(&self, driver: &mut Driver) -> Result<()> {
        let (seats, steps) = self.next_steps(driver);
        let asked = Instant::now();
        let goes_on = driver.flights.back().is_none_or(|flight| flight.seats == seats);
        if steps > 0 && !seats.is_empty() && goes_on && driver.flights.len() < 2 {
            self.submit(driver, seats, steps)?;
            // Where nothing else is under way, the device should have something to do while this is read.
            if driver.flights.len() < 2 {
                return Ok(());
            }
        }
        let Some(Flight { back, .. }) = driver.flights.front() else {
            let what = "a stream waits for steps that nobody takes; generate from it anew";
            return Err(Error::Usage(what.into()));
        };
        #[cfg(test)]
        crate::tests::support::pause().await;
        let count = driver.flights[0].seats.len() * MOST_STEPS;
        self.back[*back].read(&self.model.gpu, &mut driver.words[..count]).await?;
        let Some(flight) = driver.flights.pop_front() else { return Ok(()) };
        self.hand_out(&flight, &driver.words);
        self.learn(driver, &flight, asked);
        Ok(())
    }

    fn hand_out(&self, flight: &Flight, words: &[u32]) {
        let mut seats = self.seats();
        for (row, &(stream, serial)) in flight.seats.iter().enumerate() {
            let seat = &mut seats[stream];
            // Somebody else may have the stream by now.
            if seat.serial != serial || !seat.taken {
                continue;
            }
            let chosen = &words[row * MOST_STEPS..][..flight.steps];
            let found = chosen.iter().take_while(|&&token| token != NO_TOKEN).count();
            seat.none_left |= found < chosen.len();
            seat.unread.extend(&chosen[..found]);
            seat.token = chosen[found.max(1) - 1];
        }
    }

    fn learn(&self, driver: &mut Driver, flight: &Flight, asked: Instant) {
        let now = Instant::now();
        let Some(before) = driver.last_read.replace(now) else { return };
        let (time, elsewhere) = (now - before, asked.saturating_duration_since(before));
        if 2 * elsewhere > time {
            return;
        }
        driver.steps.took(flight.steps, time);
        let pass = &self.passes[flight.pass];
        let all = flight.steps * (pass.body.pieces() + pass.head.pieces() + flight.seats.len());
        driver.portions[flight.pass].took(all as f64, flight.submissions, time);
    }

    /// Submits so many steps of these.
    fn submit(&self, driver: &mut Driver, seats: Seats, steps: usize) -> Result<()> {
        let gpu = &*self.model.gpu;
        let fresh = driver.flights.is_empty();
        let count = seats.len();
        if fresh {
            driver.last_read = None;
            self.choose(driver, &seats)?;
        }
        self.write(driver, &seats, fresh);
        let at = self.passes.iter().position(|pass| pass.act.tokens.shape[0] >= count).unwrap_or(0);
        let pass = &self.passes[at];
        let choices = driver.choices[..count].iter().flatten().map(|(_, program)| program);
        let programs: Vec<_> = [&pass.body, &pass.head].into_iter().chain(choices).collect();
        let copy = [(&self.chosen, &self.back[driver.back])];
        let submissions = driver.portions[at].submit(gpu, steps, &programs, &copy);
        let mut all_seats = self.seats();
        for &(stream, _) in &seats {
            let seat = &mut all_seats[stream];
            let place = seat.fed + seat.submitted;
            count_cache(gpu, (&self.kernels, &self.first), place, steps as u64, 1);
            seat.submitted += steps as u64;
            seat.room = seat.room.saturating_sub(steps as u64);
        }
        let back = driver.back;
        driver.back = 1 - back;
        driver.flights.push_back(Flight { seats, steps, back, submissions, pass: at });
        Ok(())
    }

    /// Notes down what chooses in each row.
    fn choose(&self, driver: &mut Driver, seats: &Seats) -> Result<()> {
        for (row, &(stream, serial)) in seats.iter().enumerate() {
            let key = (stream, serial);
            if driver.choices[row].as_ref().is_some_and(|(have, _)| *have == key) {
                continue;
            }
            let Some(choice) = self.seats()[stream].choice.clone() else { continue };
            let Activations { tokens, frames, frame, .. } = &self.act;
            let frames = frames.as_ref().unwrap_or(frame);
            let vocab = self.model.config.n_vocab;
            let tensors = [
                &self.logits.view("act.row_logits", row, &[1, vocab]),
                &choice.banned,
                &tokens.view("act.row_token", row, &[FRAME_ROW]),
                &frames.view("act.row_frame", row, &[FRAME]),
                &self.chosen.view("row_chosen", row, &[MOST_STEPS]),
            ];
            let by = (choice.bias.as_ref(), choice.draws.as_ref());
            let program = self.kernels.choice(&self.model.gpu, &self.cache, tensors, by)?;
            driver.choices[row] = Some((key, program));
        }
        Ok(())
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

    /// Bytes of activations on the device, for each stream.
    pub(super) fn activation_bytes(&self) -> u64 {
        let all = self.act.bytes() + self.logits.size() + self.chosen.size();
        all / self.act.tokens.shape[0] as u64
    }
}

/// A session's place among those that share passes.
pub(super) struct Seated {
    pub(super) rows: Arc<Rows>,
    pub(super) stream: usize,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.rows.leave(self.stream);
    }
}

impl Session {
    /// Makes room for several streams over one model: as many sessions, each with a cache of its own that no other can take
    /// from it. Their generations go on together: a step reads the weights once for all who wait for a token. What a
    /// stream is given does not depend on the others, and is not that of a session by itself to the bit: norms do not
    /// fold here.
    pub async fn several(
        model: Arc<Model>,
        settings: CacheSettings,
        streams: usize,
    ) -> Result<Vec<Self>> {
        let gpu = model.gpu.clone();
        gpu.answered(Self::made_several(model, settings, streams)).await
    }

    async fn made_several(
        model: Arc<Model>,
        settings: CacheSettings,
        streams: usize,
    ) -> Result<Vec<Self>> {
        if !(1..=MOST_STREAMS).contains(&streams) {
            return Err(Error::Setting {
                which: "streams",
                found: streams.to_string(),
                works: format!("1 to {MOST_STREAMS} works"),
            });
        }
        model.config.expect_rows(settings.policy)?;
        let kernels = crate::model::KernelSettings { rows: true, ..(&settings).into() };
        let kernels = model.kernels(kernels).await?;
        let rows = Rows::new(model.clone(), kernels.clone(), settings, streams)?;
        let rows = Arc::new(rows);
        let mut sessions = Vec::with_capacity(streams);
        for stream in 0..streams {
            let (cache, seated) = (rows.share(stream), Seated { rows: rows.clone(), stream });
            let (model, kernels) = (model.clone(), kernels.clone());
            sessions.push(Self::over(model, kernels, cache, Some(seated)).await?);
        }
        Ok(sessions)
    }

    /// Whether it shares passes with others: [`Session::several`] has made it.
    pub fn shares_passes(&self) -> bool {
        self.seated.is_some()
    }

    /// Notes how far the device was led on with others, which ends here.
    pub(super) fn leave_rows(&mut self) {
        let led = self.seated.as_ref().and_then(|Seated { rows, stream }| rows.leave(*stream));
        if let Some(tokens) = led {
            self.standing.led(tokens);
        }
    }

    /// Tokens that the device was fed with others beyond those given out before the last.
    pub(super) fn beyond(&self) -> u64 {
        self.seated.as_ref().map_or(0, |Seated { rows, stream }| rows.beyond(*stream))
    }
}

impl crate::model::Config {
    /// An error where a model or a policy cannot have several streams in one pass.
    fn expect_rows(&self, policy: Policy) -> Result<()> {
        let why = match policy {
            Policy::Recompute => "with policy recompute every token is a pass of its own",
            Policy::HalfDiscard => "with policy half-discard a cache is turned by itself",
            _ if self.layers.iter().any(|kind| !kind.attends()) => {
                "this model has layers with states, which only a pass of one stream goes through"
            }
            _ if self.positions == crate::model::Positions::Learned => {
                "this model has learned positions, which only a pass of one stream adds"
            }
            _ => return Ok(()),
        };
        Err(Error::Unsupported(format!("streams that share their passes: {why}")))
    }
}
