//! Work into the device: in one submission, or a part after another where it takes long.
use super::{Portions, Session};
use crate::Result;
use crate::gpu::{Gpu, Pieces, Program, Readback, Tensor};
use crate::model::{Cache, Kernels, Pass};
use std::time::Duration;
use web_time::Instant;

/// What a submission should take at most.
pub(crate) const WITHIN: Duration = Duration::from_millis(100);

/// How much of a step and how much of a chunk go into one submission.
pub(super) struct Portioned {
    pub(super) one: Portions,
    many: Portions,
}

impl Default for Portioned {
    fn default() -> Self {
        Self::new(WITHIN)
    }
}

impl Portioned {
    pub(super) fn new(within: Duration) -> Self {
        Self { one: Portions::new(within), many: Portions::new(within) }
    }

    /// A step takes no longer than a chunk, until it is known how long it takes.
    fn of(&self, one: bool) -> &Portions {
        if one && (self.one.is_known() || !self.many.is_known()) { &self.one } else { &self.many }
    }

    /// The longest submission, in milliseconds.
    pub(super) fn longest(&self) -> f64 {
        self.one.longest().max(self.many.longest())
    }
}

/// Tokens of one pass, and where they go.
pub(super) struct Part<'a> {
    pub(super) place: u64,
    pub(super) tokens: &'a [u32],
    pub(super) with_logits: bool,
    /// Nothing follows.
    pub(super) last: bool,
}

/// Passes on their way through the device. Submissions go in groups of which only the last is waited for, two groups at
/// most at a time: the device has work while the host waits, and an end is heard soon.
#[derive(Default)]
pub(super) struct Flight {
    /// When the last wait ended, or the first submission was made.
    since: Option<Instant>,
    /// Those that are whole, the elder first.
    closed: [Option<Group>; 2],
    open: Group,
}

/// Pieces of full passes, in mean ones, that were submitted one after another.
#[derive(Clone, Copy, Default)]
struct Group {
    back: usize,
    submissions: usize,
    one: f64,
    many: f64,
}

impl Group {
    fn add(&mut self, one: bool, pieces: f64) {
        self.submissions += 1;
        *(if one { &mut self.one } else { &mut self.many }) += pieces;
    }
}

impl Portions {
    /// Submits programs so many times, as many pieces at once as fit, then the copies. Gives the number of submissions.
    pub(super) fn submit(
        &self,
        gpu: &Gpu,
        times: usize,
        programs: &[&Program],
        copies: &[(&Tensor, &Readback)],
    ) -> usize {
        let pieces = Pieces::of(programs);
        let (all, mut at, mut submissions) = (times * pieces.count(), 0, 0);
        while at < all {
            let end = self.end(at, &pieces, all, 1.0);
            gpu.run_pieces(programs, at..end, if end == all { copies } else { &[] });
            (at, submissions) = (end, submissions + 1);
        }
        submissions
    }
}

/// Notes what attention reads of a stream's cache for `tokens` from `place` on, in passes of so many.
pub(super) fn count_cache(
    gpu: &Gpu,
    (kernels, cache): (&Kernels, &Cache),
    place: u64,
    tokens: u64,
    pass: usize,
) {
    let readers = kernels.cache_readers(pass) as u64;
    let held = (1..=tokens).map(|i| cache.filled_bytes(place + i));
    gpu.counters.read_cache(readers * held.sum::<u64>() / pass as u64);
}

impl Session {
    /// Bounds what a submission takes: prompts and steps that would take longer are submitted a few layers at a time,
    /// as many as fit by what earlier ones have taken. 100 milliseconds unless told otherwise. Changes no result.
    pub fn submit_within(&mut self, time: Duration) {
        self.portions = Portioned::new(time);
    }

    /// How long the longest submission so far has taken, from the end of the one before; of some that were waited for
    /// together, their mean.
    pub fn longest_submission(&self) -> Duration {
        Duration::try_from_secs_f64(self.portions.longest() / 1e3).unwrap_or_default()
    }

    /// The pass for so many tokens, and whether it is the one for one.
    fn pass_for(&self, tokens: usize) -> (&Pass, bool) {
        match &self.prefill {
            Some(prefill) if tokens > 1 => (prefill, false),
            _ => (&self.decode, true),
        }
    }

    /// Submits one pass over one token, at `place` in the cache.
    pub(super) fn submit_one(&self, place: u64, token: u32) {
        let (gpu, pass) = (&*self.model.gpu, &self.decode);
        pass.act.tokens.write(gpu, 0, &[token]);
        pass.act.frame.write(gpu, 0, &self.frame(place, 1));
        self.submit_all(1, &[&pass.body, &pass.head], None);
        self.count_cache(place, 1, 1);
    }

    /// Submits programs that begin with the body of a step so many times, then the copy of what was chosen. Gives the
    /// number of submissions.
    fn submit_all(&self, times: usize, programs: &[&Program], back: Option<&Readback>) -> usize {
        let copy = back.map(|back| (&self.chosen, back));
        self.portions.of(true).submit(&self.model.gpu, times, programs, copy.as_slice())
    }

    /// Submits so many steps that follow each other on the device, then the copy of what they chose; with 0, one
    /// choice from the logits that are there. Gives the number of submissions.
    pub(super) fn submit_steps(&self, steps: usize, choice: &Program, back: &Readback) -> usize {
        let pass = &self.decode;
        if steps == 0 {
            self.model.gpu.run(&[choice], &[(&self.chosen, back)]);
            return 1;
        }
        self.count_cache(self.place(), steps as u64, 1);
        self.submit_all(steps, &[&pass.body, &pass.head, choice], Some(back))
    }

    /// Submits the pass over the token that the device is about to choose. Gives the number of submissions.
    pub(super) fn submit_ahead(&mut self) -> usize {
        self.write_step();
        self.count_cache(self.place(), 1, 1);
        let submissions = self.submit_all(1, &[&self.decode.body, &self.decode.head], None);
        self.standing.lead(1);
        self.standing.ahead += 1;
        submissions
    }

    /// How many tokens the device may go on by itself, of `most`.
    pub(super) fn room_ahead(&mut self, most: usize) -> usize {
        match (self.cache.capacity(), &mut self.shifter) {
            (Some(capacity), _) => capacity.saturating_sub(self.standing.fed) as usize,
            (None, Some(shifter)) => shifter.room(&self.model, self.standing.fed) as usize,
            (None, None) => most,
        }
    }

    /// Notes what steps have taken, submitted as [`Self::submit_steps`] does.
    pub(super) fn steps_took(&mut self, steps: usize, submissions: usize, time: Duration) {
        // The choice is a piece of its own.
        let pieces = steps * (self.decode.body.pieces() + self.decode.head.pieces() + 1);
        self.portions.one.took(pieces as f64, submissions, time);
    }

    /// Notes what attention reads of the cache for `tokens` from `place` on, in passes of so many.
    fn count_cache(&self, place: u64, tokens: u64, pass: usize) {
        count_cache(&self.model.gpu, (&self.kernels, &self.cache), place, tokens, pass);
    }

    /// Tells the device where the next step is.
    pub(super) fn write_step(&self) {
        self.decode.act.frame.write(&self.model.gpu, 0, &self.frame(self.place(), 1));
    }

    /// Submits one pass, as soon as no more than is good is under way. False, if it does not `go_on`, which is asked
    /// before each submission: then the stream is what it was before. So it is for whoever drops the future.
    pub(super) async fn submit_pass(
        &mut self,
        flight: &mut Flight,
        part: Part<'_>,
        go_on: &mut impl FnMut() -> bool,
    ) -> Result<bool> {
        let Part { place, tokens, with_logits, last } = part;
        let can_end = self.can_end_within(tokens.len());
        let one = self.pass_for(tokens.len()).1;
        let share = if one { 1.0 } else { self.share(tokens.len()) };
        let mut at = 0;
        loop {
            if at == 0 || can_end {
                self.make_way(flight, self.portions.of(one).is_known()).await?;
                if !go_on() {
                    return Ok(false);
                }
            }
            let (pass, _) = self.pass_for(tokens.len());
            let programs = &[&pass.body, &pass.head][..1 + usize::from(with_logits)];
            let filled = place + tokens.len() as u64;
            let (pieces, portions) = (Pieces::over(programs, filled), self.portions.of(one));
            let all = pieces.count();
            let end = portions.end(at, &pieces, all, share);
            if at == 0 {
                pass.act.tokens.write(&self.model.gpu, 0, tokens);
                pass.act.frame.write(&self.model.gpu, 0, &self.frame(place, tokens.len()));
            }
            let pieces = (pieces.until(end) - pieces.until(at)) * share;
            // What cannot end within is waited for whole.
            let open = if one { flight.open.one } else { flight.open.many };
            let closes = match portions.is_known() {
                true => (can_end || end == all) && portions.fills(open + 2.0 * pieces),
                // A browser may wait long for so little.
                false => end == all || can_end && !cfg!(target_arch = "wasm32"),
            };
            let closes = closes || last && end == all;
            flight.add(one, pieces);
            let copy = [(&self.chosen, &self.chosen_back[flight.open.back])];
            self.model.gpu.run_pieces(programs, at..end, if closes { &copy } else { &[] });
            if closes {
                flight.close();
            }
            if end == all {
                self.count_cache(place, tokens.len() as u64, tokens.len());
                return Ok(true);
            }
            if at == 0 && can_end && self.shifter.is_none() && !self.recomputes() {
                // Of the ring is written what a pass that is not ended leaves behind.
                let reach = self.standing.fed + tokens.len() as u64;
                self.standing.reach = self.standing.reach.max(reach);
            }
            at = end;
        }
    }

    /// How many of a pass's tokens go at once. It is the same pass with fewer of them, and no result is another for it.
    pub(super) fn at_once(&self, tokens: usize) -> usize {
        let (chunk, tile) = (self.cache.settings().chunk, self.kernels.tile_tokens());
        let Some(pass) = &self.prefill else { return tokens };
        let fit = self.portions.many.tokens(chunk, tile, Pieces::of(&[&pass.body]).largest());
        // A token by itself would be another kernel's.
        if tokens <= fit + 1 { tokens } else { fit }
    }

    /// What a pass over so many tokens takes beside one over a full chunk: both are of whole tiles.
    fn share(&self, tokens: usize) -> f64 {
        let chunk = self.cache.settings().chunk;
        tokens.next_multiple_of(self.kernels.tile_tokens()).min(chunk) as f64 / chunk as f64
    }

    /// Whether a pass over so many tokens can be left in the middle: where the last token before it can still be fed
    /// anew.
    fn can_end_within(&self, tokens: usize) -> bool {
        let (fed, tokens) = (self.standing.fed, tokens as u64);
        match &self.shifter {
            Some(shifter) => !self.standing.stale || shifter.since(fed) > 0,
            None if self.recomputes() => true,
            None => tokens <= self.cache.spare(fed + tokens),
        }
    }

    /// Before a group of submissions: waits until one at most is under way, and none where it would tell how long
    /// they take.
    async fn make_way(&mut self, flight: &mut Flight, known: bool) -> Result<()> {
        let enough = flight.closed[1].is_some() || !known && flight.closed[0].is_some();
        if flight.open.submissions == 0 && enough {
            self.wait_for_group(flight).await?;
        }
        Ok(())
    }

    async fn wait_for_group(&mut self, flight: &mut Flight) -> Result<()> {
        let Some(Group { back, submissions, one, many }) = flight.closed[0] else { return Ok(()) };
        self.wait_for(&self.chosen_back[back], &mut [0u32]).await?;
        flight.closed = [flight.closed[1], None];
        let now = Instant::now();
        let Some(since) = flight.since.replace(now) else { return Ok(()) };
        // Of a group of both kinds nobody knows which has taken what.
        match (one > 0.0, many > 0.0) {
            (true, false) => self.portions.one.took(one, submissions, now - since),
            (false, true) => self.portions.many.took(many, submissions, now - since),
            _ => {}
        }
        Ok(())
    }

    /// Waits for all that is under way.
    pub(super) async fn land(&mut self, mut flight: Flight) -> Result<()> {
        let settled = flight.closed[0].is_some() && flight.open.submissions == 0;
        while flight.closed[0].is_some() {
            self.wait_for_group(&mut flight).await?;
        }
        if settled { Ok(()) } else { self.settle().await }
    }

    /// Waits until the device has done what was submitted.
    pub(super) async fn settle(&self) -> Result<()> {
        let gpu = &*self.model.gpu;
        gpu.run(&[], &[(&self.chosen, &self.chosen_back[0])]);
        self.wait_for(&self.chosen_back[0], &mut [0u32]).await
    }

    /// What a stream may wait for, and may never come to the end of.
    pub(super) async fn wait_for<E: bytemuck::Pod>(
        &self,
        back: &Readback,
        out: &mut [E],
    ) -> Result<()> {
        #[cfg(test)]
        crate::tests::support::pause().await;
        back.read(&self.model.gpu, out).await
    }
}

impl Flight {
    fn add(&mut self, one: bool, pieces: f64) {
        if self.closed[0].is_none() && self.open.submissions == 0 {
            self.since = Some(Instant::now());
        }
        self.open.add(one, pieces);
    }

    fn close(&mut self) {
        let back = 1 - self.open.back;
        let closed = std::mem::replace(&mut self.open, Group { back, ..Group::default() });
        let younger = usize::from(self.closed[0].is_some());
        self.closed[younger] = Some(closed);
    }
}
