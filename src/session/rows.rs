//! Steps that several streams take together: a row of a pass each, so that weights are read once for all. What a stream is
//! given does not depend on the others. Whoever waits for a token first leads all of them on.
use super::alone::Rules;
use super::pace::{MOST_STEPS, Pace, Steps};
use super::submit::WITHIN;
use super::{Logprobs, Portions, Session};
use crate::gpu::{Program, Readback, Tensor};
use crate::model::{Activations, Cache, CacheSettings, Kernels, Model, Pass, Policy, Tokens};
use crate::ops::{FRAME_ROW, SamplerState};
use crate::text::SamplerSettings;
use crate::{Error, Result};
use drive::Driver;
use futures_util::lock::Mutex as Turn;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod drive;

/// The most streams that share their passes.
pub(super) const MOST_STREAMS: usize = 256;

/// What streams share: their caches, and passes over one token of each.
pub(super) struct Rows {
    model: Arc<Model>,
    kernels: Arc<Kernels>,
    cache: Cache,
    /// The share of the first, which the others' are like.
    first: Cache,
    /// By the rows that they take, fewest first, each with what chooses in them.
    passes: Vec<(Pass, Program)>,
    /// What each stream chooses by.
    draws: SamplerState,
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
    unread: VecDeque<Given>,
    none_left: bool,
    /// Why its rules let nothing come any more.
    failed: Option<Error>,
    /// Tokens that the cache has room for, where it ends.
    room: u64,
    pinned: Option<usize>,
    rules: Option<Arc<Mutex<Rules>>>,
    watch: Option<Watch>,
}

/// How many of the likeliest tokens somebody wants to see, and where the logits are read.
pub(super) type Watch = (usize, Arc<Readback>);

/// A token, and what is known with it.
#[derive(Default)]
pub(super) struct Given {
    pub(super) token: u32,
    /// How likely it was, where somebody watches.
    pub(super) seen: Option<Logprobs>,
    /// What has to come after it, if it is worth being fed together: nothing else comes here until it was.
    pub(super) forced: Vec<u32>,
}

impl Seat {
    /// Whether somebody waits for what it is given.
    fn goes_on(&self) -> bool {
        self.taken && !self.left && !self.none_left && self.failed.is_none()
    }

    /// Whether it takes the next step.
    fn goes(&self) -> bool {
        let held = self.unread.back().is_some_and(|last| !last.forced.is_empty());
        self.goes_on() && !held && self.room > 0
    }

    /// Whether something is to be done between one step and the other.
    fn asks(&self) -> bool {
        self.rules.is_some() || self.watch.is_some()
    }
}

/// What is joined by: see [`Rows::join`].
pub(super) struct Join {
    pub(super) token: u32,
    pub(super) fed: u64,
    pub(super) sinks_kept: bool,
    pub(super) room: u64,
    pub(super) pinned: Option<usize>,
    pub(super) rules: Option<Arc<Mutex<Rules>>>,
    pub(super) watch: Option<Watch>,
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
        let chosen = Tensor::zeros(gpu, "rows_chosen", &[streams, MOST_STEPS])?;
        let draws = SamplerState::of_streams(gpu, c.n_vocab, streams)?;
        let passes = counts.into_iter().map(|rows| {
            let logits = logits.view("act.rows_logits", 0, &[rows, width]);
            let pass = Pass::new(&model, &kernels, &cache, act.first(gpu, c, rows), &logits)?;
            let Activations { tokens, frames, frame, .. } = &act;
            let tensors = [&logits, tokens, frames.as_ref().unwrap_or(frame), &chosen];
            Ok((pass, kernels.choices(gpu, &cache, &draws, tensors)?))
        });
        let passes = passes.collect::<Result<Vec<_>>>()?;
        let words = streams * MOST_STEPS;
        let most = (cache.spare(u64::MAX) as usize / 4 + 1).clamp(1, MOST_STEPS);
        let portions = passes.iter().map(|_| Portions::new(WITHIN)).collect();
        let driver = Driver::new(Steps::new(Pace::default(), most), portions, words);
        let seats = (0..streams).map(|_| Seat::default()).collect();
        Ok(Self {
            act,
            passes,
            draws,
            logits,
            chosen,
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
        let Join { token, fed, sinks_kept, room, pinned, rules, watch } = join;
        let seat = &mut self.seats()[stream];
        let (serial, taken, fresh) = (seat.serial + 1, true, Seat::default());
        *seat = Seat { serial, taken, token, fed, sinks_kept, room, pinned, rules, watch, ..fresh };
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
            seat.left = true;
        }
    }

    /// The next token of a stream; none where the device has found none to choose.
    pub(super) async fn next(&self, stream: usize, serial: u64) -> Result<Option<Given>> {
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
        !seat.unread.is_empty() || !seat.goes_on()
    }

    fn given(&self, stream: usize, serial: u64) -> Result<Option<Option<Given>>> {
        let seat = &mut self.seats()[stream];
        if seat.serial != serial || !seat.taken || seat.left {
            let what = "a stream was led on by two at once; generate from it anew";
            return Err(Error::Usage(what.into()));
        }
        if let Some(given) = seat.unread.pop_front() {
            seat.given += 1;
            seat.left |= !given.forced.is_empty();
            return Ok(Some(Some(given)));
        }
        if let Some(error) = seat.failed.take() {
            seat.left = true;
            return Err(error);
        }
        Ok(seat.none_left.then_some(None))
    }

    /// Bytes of activations on the device, for each stream.
    pub(super) fn activation_bytes(&self) -> u64 {
        let all = self.act.bytes() + self.logits.size() + self.chosen.size() + self.draws.bytes();
        all / self.act.tokens.shape[0] as u64
    }
}

/// A session's place among those that share passes.
pub(super) struct Seated {
    pub(super) rows: Arc<Rows>,
    pub(super) stream: usize,
}

impl Seated {
    /// What it draws by, where its settings find room.
    pub(super) fn draws(&self, by: &SamplerSettings) -> Result<SamplerState> {
        let draws = self.rows.draws.stream(self.stream);
        draws.expect(by)?;
        Ok(draws)
    }
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
