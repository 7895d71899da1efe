//! A stream: feed it tokens, take tokens from it, for ever. What the command line and the web share.
use crate::gpu::{KernelTime, Program, Readback, Tensor};
use crate::model::{
    Activations, Cache, CacheSettings, Kernels, Model, Pass, Policy, Shifter, reduce,
};
use crate::ops::{Draws, FRAME, NOT_A_NUMBER};
use crate::text::{Sampler, SamplerSettings};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use web_time::Instant;

mod snapshot;
pub use snapshot::Snapshot;

/// One stream over one model. Its memory is fixed when it is made.
pub struct Session {
    model: Arc<Model>,
    cache: Cache,
    /// A chunk of a prompt, if that is more than one token; and one token.
    prefill: Option<Pass>,
    decode: Pass,
    kernels: Arc<Kernels>,
    /// Of `half-discard` alone.
    shifter: Option<Shifter>,
    logits: Tensor, // [1, V]
    banned: Tensor, // [ceil(V/32)] bits
    /// What the steps of one submission chose.
    chosen: Tensor, // [MOST_STEPS]
    logits_back: Readback,
    chosen_back: [Readback; 2],
    /// Tokens fed so far. Never wraps.
    position: u64,
    /// The furthest that the ring was ever written: what was taken back has overwritten what it had to.
    reach: u64,
    /// A token of the stream that was given out, but not fed yet.
    pending: Option<u32>,
    /// Tokens that were fed, but not given out yet: a generation is that far ahead.
    ahead: u64,
    /// The last token that was fed and given out.
    last: u32,
    /// Changes when the stream is led on by anything but a generation.
    epoch: u64,
    /// False while the policy of a `streaming` cache is `window`.
    sinks_kept: bool,
    /// The last W tokens, for `recompute` alone.
    recent: VecDeque<u32>,
}

impl Session {
    /// Makes room for a stream: cache, activations and programs. Nothing more is allocated later.
    pub async fn new(model: Arc<Model>, settings: CacheSettings) -> Result<Self> {
        let gpu = model.gpu.clone();
        gpu.answered(Self::made(model, settings)).await
    }

    async fn made(model: Arc<Model>, settings: CacheSettings) -> Result<Self> {
        let gpu = &*model.gpu;
        let vocab = model.config.n_vocab;
        let factors = model.weights.rope_freqs.as_deref();
        let cache = Cache::new(gpu, &model.config, settings, factors)?;
        let kernels = model.kernels((&settings).into()).await?;
        let shifter = Shifter::new(&model, &cache).await?;
        let logits = Tensor::zeros(gpu, "act.logits", &[1, vocab])?;
        let banned = Tensor::zeros(gpu, "banned", &[vocab.div_ceil(32)])?;
        let one = Activations::new(gpu, &model, &cache, 1)?;
        let decode = Pass::fused(&model, &kernels, &cache, one, &logits)?;
        let prefill = match settings.chunk {
            1 => None,
            chunk => {
                let many = Activations::new(gpu, &model, &cache, chunk)?;
                Some(Pass::new(&model, &kernels, &cache, many, &logits)?)
            }
        };
        let chosen = Tensor::zeros(gpu, "chosen", &[MOST_STEPS])?;
        let logits_back = Readback::new(gpu, vocab)?;
        let chosen_back = [Readback::new(gpu, MOST_STEPS)?, Readback::new(gpu, MOST_STEPS)?];
        let session = Self {
            model,
            cache,
            prefill,
            decode,
            kernels,
            shifter,
            logits,
            banned,
            chosen,
            logits_back,
            chosen_back,
            position: 0,
            reach: 0,
            pending: None,
            ahead: 0,
            last: 0,
            epoch: 0,
            sinks_kept: true,
            recent: VecDeque::new(),
        };
        // A browser tells of what did not fit when the device gets there.
        session.settle().await?;
        Ok(session)
    }

    /// The model it streams from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The cache as it is.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Tokens of the stream so far: fed, or given out by a [`Generation`].
    pub fn position(&self) -> u64 {
        self.position - self.ahead + u64::from(self.pending.is_some())
    }

    /// Tokens that no query can look back on any more.
    pub fn evicted(&self) -> u64 {
        if let Some(shifter) = &self.shifter {
            return shifter.gone();
        }
        let ring = self.cache.geometry();
        let sinks = if self.sinks_kept { ring.sinks } else { 0 };
        self.position().saturating_sub(u64::from(sinks) + u64::from(ring.window))
    }

    /// Which tokens a query may look back on now.
    pub fn policy(&self) -> Policy {
        match self.cache.settings().policy {
            Policy::Streaming if !self.sinks_kept => Policy::Window,
            policy => policy,
        }
    }

    /// Switches a `streaming` cache to `window` and back, from the next token on: its sinks are no longer
    /// seen, or are again. Nothing is computed anew; `window` sees what a cache of that policy would.
    pub fn set_policy(&mut self, policy: Policy) -> Result<()> {
        let made_for = self.cache.settings().policy;
        match (made_for, policy) {
            (Policy::Streaming, Policy::Streaming | Policy::Window) => {
                self.sinks_kept = policy == Policy::Streaming;
                Ok(())
            }
            _ if made_for == policy => Ok(()),
            _ => Err(Error::Usage(format!(
                "the cache was made for {made_for:?} and cannot become {policy:?}: only a stream \
                 with sinks can be switched, to Window and back; make a new one"
            ))),
        }
    }

    /// Bytes of activations on the device.
    pub fn activation_bytes(&self) -> u64 {
        let own = [&self.logits, &self.banned, &self.chosen].map(Tensor::size);
        let passes = self.prefill.as_ref().map_or(0, Pass::bytes) + self.decode.bytes();
        passes + own.iter().sum::<u64>()
    }

    /// Starts anew. What the cache held is not seen again.
    pub fn reset(&mut self) {
        self.position = 0;
        self.reach = 0;
        self.pending = None;
        self.ahead = 0;
        self.epoch += 1;
        self.recent.clear();
        if let Some(shifter) = &mut self.shifter {
            shifter.reset();
        }
    }

    /// Takes back the last `tokens` of the stream, as if they had never been there. `last` is the token before
    /// them. Exact; an error where the ring has already lost what a query would have to see.
    pub async fn rewind(&mut self, tokens: u64, last: u32) -> Result<()> {
        let ring = self.cache.geometry();
        let (stored, spare) = (ring.sinks + ring.slots, self.spare());
        // Of tokens that were there before half of the cache went, the last cannot be fed anew.
        let spare = match &self.shifter {
            Some(shifter) => shifter.since(self.position).saturating_sub(1),
            None => spare,
        };
        let given = u64::from(self.pending.is_some());
        let fed = tokens.saturating_sub(given) + self.ahead;
        let recompute = self.cache.settings().policy == Policy::Recompute;
        let beyond = self.reach.saturating_sub(self.position);
        let lost = recompute || self.reach > u64::from(stored) && fed + beyond > spare;
        if fed > 0 && (lost || fed >= self.position) {
            return Err(Error::Usage(format!(
                "{tokens} tokens cannot be taken back: this stream holds {} and keeps what {} need",
                self.position(),
                if recompute { given } else { spare.saturating_sub(beyond) + given },
            )));
        }
        self.epoch += 1;
        if tokens > 0 {
            self.pending = None;
        }
        self.last = last;
        self.ahead = 0;
        if fed > 0 {
            self.position -= fed + 1;
            self.run_chunk(&[last], true);
        }
        self.model.gpu.check()
    }

    /// Tokens that can be taken back from a ring that has gone round: N - W.
    fn spare(&self) -> u64 {
        let ring = self.cache.geometry();
        u64::from(ring.slots - ring.window)
    }

    /// Makes the device's logits those of the last token that was given out.
    async fn catch_up(&mut self) -> Result<()> {
        if self.ahead > 0 {
            return self.rewind(0, self.last).await;
        }
        if let Some(token) = self.pending.take() {
            self.take_in(&[token]).await?;
        }
        Ok(())
    }

    /// Moves the token counter on by whole laps of a full ring, as if they had passed.
    #[cfg(test)]
    pub(crate) fn fast_forward(&mut self, laps: u64) {
        self.position += laps * u64::from(self.cache.geometry().slots);
        self.reach = self.position;
    }

    /// Takes in tokens: a prompt of any length, or one token. Their logits can be read afterwards.
    pub async fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        self.model.config.expect_ids(tokens)?;
        self.room_for(tokens.len() as u64)?;
        self.epoch += 1;
        // What is ahead is overwritten, as if it had never been.
        self.position -= std::mem::take(&mut self.ahead);
        if let Some(token) = self.pending.take() {
            self.take_in(&[token]).await?;
        }
        if let Some(&token) = tokens.last() {
            self.last = token;
        }
        self.take_in(tokens).await
    }

    async fn take_in(&mut self, tokens: &[u32]) -> Result<()> {
        match self.cache.settings().policy {
            Policy::Recompute => self.recompute(tokens).await,
            _ => self.run_chunks(tokens).await,
        }
    }

    /// Passes over all the tokens, the last with logits. No pass goes beyond a cache that has to make room.
    async fn run_chunks(&mut self, mut tokens: &[u32]) -> Result<()> {
        while let Some(shifter) = self.shifter.as_mut().filter(|_| !tokens.is_empty()) {
            let room = shifter.room(&self.model, self.position) as usize;
            if tokens.len() <= room {
                break;
            }
            let (part, rest) = tokens.split_at(room);
            self.run_part(part, false).await?;
            tokens = rest;
        }
        self.run_part(tokens, true).await
    }

    async fn run_part(&mut self, tokens: &[u32], with_logits: bool) -> Result<()> {
        let chunk = self.cache.settings().chunk;
        // A pass over a chunk is made for a full one.
        let few = self.kernels.few_tokens();
        let (whole, rest) = tokens.split_at(tokens.len() / chunk * chunk);
        let rest = rest.chunks(if rest.len() <= few { 1 } else { chunk });
        let mut chunks = whole.chunks(chunk).chain(rest).enumerate().peekable();
        while let Some((i, chunk)) = chunks.next() {
            self.run_chunk(chunk, with_logits && chunks.peek().is_none());
            if i % 2 == 1 {
                // Bounds the work that is under way, so that an abort is quick.
                self.settle().await?;
            }
        }
        self.settle().await
    }

    /// An error when a cache that cannot forget has no room for so many tokens more.
    fn room_for(&self, tokens: u64) -> Result<()> {
        match self.cache.capacity() {
            Some(capacity) if self.position() + tokens > capacity => Err(Error::Usage(format!(
                "the dense cache holds {capacity} tokens and {} were asked of it; \
                 --policy streaming has no such end",
                self.position() + tokens
            ))),
            _ => Ok(()),
        }
    }

    /// Whether everything given out has room, and `more` tokens besides.
    fn has_room(&self, more: u64) -> bool {
        self.room_for(more).is_ok()
    }

    /// Submits one pass over at most a chunk of tokens.
    fn run_chunk(&mut self, tokens: &[u32], with_logits: bool) {
        let gpu = &*self.model.gpu;
        let pass = match &self.prefill {
            Some(prefill) if tokens.len() > 1 => prefill,
            _ => &self.decode,
        };
        pass.act.tokens.write(gpu, 0, tokens);
        pass.act.frame.write(gpu, 0, &self.frame(tokens.len()));
        let programs = [&pass.body, &pass.head];
        gpu.run(&programs[..1 + usize::from(with_logits)], &[]);
        self.count_cache(tokens.len() as u64, tokens.len());
        self.position += tokens.len() as u64;
        self.reach = self.reach.max(self.position);
    }

    /// Notes what attention reads of the cache for the next `tokens`, in passes of so many.
    fn count_cache(&self, tokens: u64, pass: usize) {
        let readers = self.kernels.cache_readers(pass) as u64;
        let held = (1..=tokens).map(|i| self.cache.filled_bytes(self.place() + i));
        self.model.gpu.counters.read_cache(readers * held.sum::<u64>() / pass as u64);
    }

    /// From the logits to the next step's token: by `draws`, or the likeliest.
    fn choice(&self, draws: Option<&Draws>) -> Result<Program> {
        let tensors = [&self.logits, &self.banned, &self.chosen];
        self.kernels.choice(&self.model.gpu, &self.cache, tensors, &self.decode.act, draws)
    }

    /// Submits so many steps that follow each other on the device, then the copy of what they chose; with 0, one
    /// choice from the logits that are there.
    fn submit_steps(&self, steps: usize, choice: &Program, back: &Readback) {
        let pass = &self.decode;
        let step = [&pass.body, &pass.head, choice];
        let copy = [(&self.chosen, back)];
        match steps {
            0 => self.model.gpu.run(&step[2..], &copy),
            _ => {
                self.count_cache(steps as u64, 1);
                self.model.gpu.run_times(steps, &step, &copy);
            }
        }
    }

    /// Runs one step anew from where the stream is, with every dispatch timed by itself. Changes nothing that a
    /// later token depends on.
    pub async fn profile(&mut self) -> Result<Vec<KernelTime>> {
        self.catch_up().await?;
        if self.position == 0 {
            return Err(Error::Usage("there is no step to time yet: feed a token first".into()));
        }
        let pass = &self.decode;
        self.position -= 1;
        pass.act.tokens.write(&self.model.gpu, 0, &[self.last]);
        pass.act.frame.write(&self.model.gpu, 0, &self.frame(1));
        self.position += 1;
        self.epoch += 1;
        let choice = self.choice(None)?;
        self.model.gpu.profile(&[&pass.body, &pass.head, &choice]).await
    }

    fn frame(&self, tokens: usize) -> [u32; FRAME] {
        let kept = u32::from(self.sinks_kept);
        [reduce(self.place(), self.cache.geometry()), tokens as u32, kept, 0]
    }

    /// The position that the next token has for the cache.
    fn place(&self) -> u64 {
        self.position - self.shifter.as_ref().map_or(0, Shifter::gone)
    }

    /// Keeps the last W tokens and runs them all from the start.
    async fn recompute(&mut self, tokens: &[u32]) -> Result<()> {
        let window = self.cache.settings().window;
        for &token in tokens {
            if self.recent.len() == window {
                self.recent.pop_front();
            }
            self.recent.push_back(token);
        }
        let fed = self.position + tokens.len() as u64;
        let mut recent = std::mem::take(&mut self.recent);
        self.position = 0;
        let done = self.run_chunks(recent.make_contiguous()).await;
        self.position = fed;
        self.recent = recent;
        done
    }

    /// Waits until the device has done what was submitted.
    async fn settle(&self) -> Result<()> {
        let gpu = &*self.model.gpu;
        gpu.run(&[], &[(&self.chosen, &self.chosen_back[0])]);
        self.chosen_back[0].read(gpu, &mut [0u32]).await
    }

    /// The logits of the token fed last. `[V]`
    pub async fn logits(&mut self) -> Result<Vec<f32>> {
        if self.ahead > 0 {
            self.catch_up().await?;
        }
        let mut logits = vec![0.0; self.model.config.n_vocab];
        self.read_logits(&mut logits).await?;
        Ok(logits)
    }

    async fn read_logits(&self, logits: &mut [f32]) -> Result<()> {
        let gpu = &*self.model.gpu;
        gpu.run(&[], &[(&self.logits, &self.logits_back)]);
        self.logits_back.read(gpu, logits).await
    }

    /// Goes on from what was fed: a source of tokens that does not end by itself. `banned` ids are
    /// never chosen.
    pub fn generate(&self, settings: SamplerSettings, banned: &[u32]) -> Result<Generation> {
        if self.position() == 0 {
            return Err(Error::Usage("there is nothing to go on from: feed a token first".into()));
        }
        let vocab = self.model.config.n_vocab;
        let mut bits = vec![0u32; vocab.div_ceil(32)];
        for &id in banned.iter().filter(|&&id| (id as usize) < vocab) {
            bits[id as usize / 32] |= 1 << (id % 32);
        }
        self.banned.write(&self.model.gpu, 0, &bits);
        let on_gpu = self.cache.settings().policy != Policy::Recompute;
        let draws = match on_gpu && !settings.is_greedy() {
            true => Some(Draws::new(&self.model.gpu, &settings, vocab)?),
            false => None,
        };
        let choice = if on_gpu { Some(self.choice(draws.as_ref())?) } else { None };
        let sampler = Sampler::new(settings, vocab, banned)?;
        let logits = vec![0.0; if on_gpu { 0 } else { vocab }];
        // Twice as many less two are ahead; half of what can be taken back is left to who reads the stream.
        let most = (self.spare() as usize / 4 + 1).clamp(1, MOST_STEPS);
        Ok(Generation {
            sampler,
            logits,
            choice,
            draws,
            at: None,
            queue: VecDeque::with_capacity(MOST_STEPS),
            under_way: 0,
            back: 0,
            steps: 1,
            most,
            pinned: false,
            last_read: None,
        })
    }
}

/// Steps that are submitted together at most.
const MOST_STEPS: usize = 16;
/// What a reader of a stream does not feel, in milliseconds: as many steps as fit are submitted together.
const UNFELT_MS: f64 = 30.0;

/// Tokens one after another. They are chosen on the device, several steps to a submission, and the
/// next submission starts before the host has read the last. It can be dropped at any time: the session goes on
/// from the last token that was given out, whether it is fed, rewound or generated from next.
pub struct Generation {
    sampler: Sampler,
    logits: Vec<f32>,
    /// What chooses on the device; none where every token is computed anew, and the host chooses.
    choice: Option<Program>,
    draws: Option<Draws>,
    /// Where the stream was when this generation last led it on: epoch and position.
    at: Option<(u64, u64)>,
    /// Chosen, read, and not given out yet.
    queue: VecDeque<u32>,
    /// Choices that `chosen_back[back]` is waited for.
    under_way: usize,
    back: usize,
    /// Steps of the next submission, and the most there may be.
    steps: usize,
    most: usize,
    /// The caller has said how many.
    pinned: bool,
    last_read: Option<Instant>,
}

impl Generation {
    /// Tells the penalties of a token that was not generated here, such as the prompt's.
    pub fn accept(&mut self, token: u32) {
        self.sampler.accept(token);
        // The device's own list of recent tokens is not it.
        if self.sampler.penalises() {
            self.at = None;
        }
    }

    /// Submits exactly so many steps together, if the ring allows, instead of what the device's speed suggests.
    pub fn submit_together(&mut self, steps: usize) {
        self.steps = steps.clamp(1, self.most);
        self.pinned = true;
    }

    /// The next token; `None` when a dense cache is full.
    pub async fn next(&mut self, session: &mut Session) -> Result<Option<u32>> {
        if !session.has_room(0) {
            return Ok(None);
        }
        self.next_chosen(session).await.map(Some)
    }

    async fn next_sampled(&mut self, session: &mut Session) -> Result<u32> {
        if session.ahead > 0 {
            session.catch_up().await?;
        }
        if let Some(token) = session.pending.take() {
            session.recompute(&[token]).await?;
        }
        session.read_logits(&mut self.logits).await?;
        let token = self.sampler.sample(&mut self.logits)?;
        self.sampler.accept(token);
        session.pending = Some(token);
        session.last = token;
        Ok(token)
    }

    /// The device's choice, or the host's where it has none.
    async fn next_chosen(&mut self, session: &mut Session) -> Result<u32> {
        let Some(choice) = &self.choice else { return self.next_sampled(session).await };
        if self.at != Some((session.epoch, session.position)) {
            // Somebody else has led the stream on, or nobody yet.
            session.catch_up().await?;
            self.queue.clear();
            if let Some(draws) = &self.draws {
                let (recent, count) = self.sampler.state();
                draws.set(&session.model.gpu, count, recent);
            }
            session.decode.act.frame.write(&session.model.gpu, 0, &session.frame(1));
            session.submit_steps(0, choice, &session.chosen_back[self.back]);
            self.under_way = 1;
        }
        if self.queue.is_empty() {
            self.refill(session).await?;
        }
        self.at = Some((session.epoch, session.position));
        let Some(token) = self.queue.pop_front() else {
            return Err(Error::Usage("the device chose no token; start the stream again".into()));
        };
        match session.ahead {
            0 => session.pending = Some(token),
            _ => session.ahead -= 1,
        }
        session.last = token;
        self.sampler.drawn(token);
        Ok(token)
    }

    /// Submits the next steps, then waits for the choices before them.
    async fn refill(&mut self, session: &mut Session) -> Result<()> {
        let (count, back) = (self.under_way, self.back);
        let room = match (session.cache.capacity(), &mut session.shifter) {
            (Some(capacity), _) => capacity.saturating_sub(session.position) as usize,
            (None, Some(shifter)) => shifter.room(&session.model, session.position) as usize,
            (None, None) => self.steps,
        };
        // The device goes on from the token it has chosen itself.
        let steps = self.steps.min(room);
        if let (1.., Some(choice)) = (steps, &self.choice) {
            session.decode.act.frame.write(&session.model.gpu, 0, &session.frame(1));
            session.submit_steps(steps, choice, &session.chosen_back[1 - back]);
            session.position += steps as u64;
            session.reach = session.reach.max(session.position);
            session.ahead += steps as u64;
        }
        self.under_way = steps;
        self.back = 1 - back;
        let mut tokens = [0; MOST_STEPS];
        session.chosen_back[back].read(&session.model.gpu, &mut tokens[..count]).await?;
        if tokens[..count].iter().any(|&id| id >= NOT_A_NUMBER) {
            return Err(Error::Usage(
                "there is no token to choose: every one is banned, or the model's logits are not numbers \
                 and its file is damaged or not for this engine"
                    .into(),
            ));
        }
        self.queue.extend(&tokens[..count]);
        self.adapt(count);
        Ok(())
    }

    /// As many steps as pass unfelt, at most twice as many as before.
    fn adapt(&mut self, count: usize) {
        if self.pinned {
            return;
        }
        let now = Instant::now();
        if let Some(before) = self.last_read.replace(now) {
            let step = (now - before).as_secs_f64() * 1e3 / count.max(1) as f64;
            let unfelt = (UNFELT_MS / step.max(1e-3)) as usize;
            self.steps = unfelt.clamp(1, self.most).min(2 * self.steps);
        }
    }
}
