//! A stream: feed it tokens, take tokens from it, for ever. What the command line and the web share.
use crate::gpu::{KernelTime, Program, Readback, Tensor};
use crate::model::{
    Activations, Cache, CacheSettings, Kernels, Model, Pass, Policy, Shifter, Tokens, reduce,
};
use crate::ops::FRAME;
use crate::text::expect_numbers;
use crate::{Error, Result};
use std::sync::Arc;

mod alone;
mod constraint;
mod feed;
mod fork;
mod generation;
mod pace;
mod portions;
mod reading;
mod rows;
mod snapshot;
mod standing;
mod submit;
mod together;
pub use alone::Logprobs;
pub use constraint::Constraint;
use generation::By;
pub use generation::Generation;
use pace::MOST_STEPS;
pub use pace::Pace;
pub(crate) use portions::Portions;
pub use reading::{Ended, Read, Reading};
use rows::Seated;
pub use snapshot::Snapshot;
use standing::Standing;
use submit::Portioned;
#[cfg(feature = "cli")]
pub(crate) use submit::WITHIN;

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
    /// What the steps of one submission chose.
    chosen: Tensor, // [MOST_STEPS]
    logits_back: Readback,
    chosen_back: [Readback; 2],
    standing: Standing,
    portions: Portioned,
    /// False while the policy of a `streaming` cache is `window`.
    sinks_kept: bool,
    /// What is run anew, of `recompute` alone.
    anew: Vec<u32>,
    /// Among the streams that share passes.
    seated: Option<Seated>,
}

impl Session {
    /// Makes room for a stream: cache, activations and programs. Nothing more is allocated later.
    pub async fn new(model: Arc<Model>, settings: CacheSettings) -> Result<Self> {
        let gpu = model.gpu.clone();
        gpu.answered(Self::made(model, settings)).await
    }

    async fn made(model: Arc<Model>, settings: CacheSettings) -> Result<Self> {
        let cache = Cache::new(&model.gpu, &model.config, settings, &model.weights.divisors)?;
        let kernels = model.kernels((&settings).into()).await?;
        Self::over(model, kernels, cache, None).await
    }

    /// Over a cache of its own, or a share of one.
    async fn over(
        model: Arc<Model>,
        kernels: Arc<Kernels>,
        cache: Cache,
        seated: Option<Seated>,
    ) -> Result<Self> {
        let (gpu, settings) = (&*model.gpu, cache.settings());
        let shifter = Shifter::new(&model, &cache).await?;
        let vocab = model.config.n_vocab;
        let logits = Tensor::zeros(gpu, "act.logits", &[1, vocab])?;
        // By itself a token of such a stream goes the way that it goes with others.
        let tokens = if seated.is_some() { Tokens::Rows(1) } else { Tokens::One };
        let one = Activations::new(gpu, &model, &cache, tokens)?;
        let decode = Pass::new(&model, &kernels, &cache, one, &logits)?;
        let prefill = match settings.chunk {
            1 => None,
            chunk => {
                let many = Activations::new(gpu, &model, &cache, Tokens::Many(chunk))?;
                Some(Pass::new(&model, &kernels, &cache, many, &logits)?)
            }
        };
        let chosen = Tensor::zeros(gpu, "chosen", &[MOST_STEPS])?;
        let logits_back = Readback::new(gpu, vocab)?;
        let chosen_back = [Readback::new(gpu, MOST_STEPS)?, Readback::new(gpu, MOST_STEPS)?];
        // All that can be taken back, and one that comes before it.
        let ring = cache.longest();
        let standing = Standing::new(ring.sinks as usize + ring.slots as usize + 1);
        let session = Self {
            model,
            cache,
            prefill,
            decode,
            kernels,
            shifter,
            logits,
            chosen,
            logits_back,
            chosen_back,
            standing,
            portions: Portioned::default(),
            sinks_kept: true,
            anew: Vec::new(),
            seated,
        };
        // A browser tells of what did not fit when the device gets there.
        session.settle().await?;
        Ok(session)
    }

    /// The model it streams from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The same, for other sessions to share.
    pub fn shared_model(&self) -> Arc<Model> {
        self.model.clone()
    }

    /// The cache as it is.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Tokens of the stream so far: fed, or given out by a [`Generation`].
    pub fn position(&self) -> u64 {
        self.standing.position()
    }

    /// The tokens fed or given out last, oldest first: as many as the cache stores, if there are so many.
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.standing.known()
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

    /// Switches a `streaming` cache to `window` and back, from the next token on, be it fed or chosen: its sinks are no
    /// longer seen, or are again. The last token is fed once more, for the next to be chosen so; `window` sees what a
    /// cache of that policy would.
    pub fn set_policy(&mut self, policy: Policy) -> Result<()> {
        self.leave_rows();
        let made_for = self.cache.settings().policy;
        match (made_for, policy) {
            (Policy::Streaming, Policy::Streaming | Policy::Window) => {
                let keeps = policy == Policy::Streaming;
                if keeps != self.sinks_kept {
                    self.expect_kept(0, self.standing.ahead)?;
                    self.sinks_kept = keeps;
                    self.standing.drop_ahead();
                    self.standing.epoch += 1;
                    // The logits that the next token is chosen from saw what the last one saw.
                    if self.standing.fed > 0 && self.standing.pending.is_none() {
                        self.feed_last_anew();
                    }
                }
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
        let own = [&self.logits, &self.chosen].map(Tensor::size);
        let passes = self.prefill.as_ref().map_or(0, Pass::bytes) + self.decode.bytes();
        let shared = self.seated.as_ref().map_or(0, |seated| seated.rows.activation_bytes());
        passes + shared + own.iter().sum::<u64>()
    }

    /// Starts anew. What the cache held is not seen again.
    pub fn reset(&mut self) {
        self.leave_rows();
        self.standing.reset();
        if let Some(shifter) = &mut self.shifter {
            shifter.reset();
        }
    }

    /// Takes back the last `tokens` of the stream, as if they had never been there. `last` is the token before
    /// them. Exact; an error where the ring has already lost what a query would have to see, or where `last` is not
    /// what was there.
    pub async fn rewind(&mut self, tokens: u64, last: u32) -> Result<()> {
        self.model.config.expect_ids(&[last])?;
        self.leave_rows();
        let position = self.position();
        if tokens >= position {
            return Err(Error::Usage(format!(
                "{tokens} tokens cannot be taken back: this stream holds {position}, and one has to be left"
            )));
        }
        if let Some(there) = self.standing.before(tokens).filter(|&there| there != last) {
            return Err(Error::Usage(format!(
                "{tokens} tokens cannot be taken back to token {last}: before them comes {there}"
            )));
        }
        let given = u64::from(self.standing.pending.is_some());
        let fed = tokens.saturating_sub(given) + self.standing.ahead;
        self.expect_kept(tokens, fed)?;
        self.standing.epoch += 1;
        self.standing.take_back(tokens, fed, last);
        if fed > 0 {
            self.feed_last_anew();
        }
        self.model.gpu.check()
    }

    /// An error unless the last `fed` tokens, because of `tokens` that were given out, can be fed anew.
    fn expect_kept(&self, tokens: u64, fed: u64) -> Result<()> {
        let Standing { fed: position, reach, .. } = self.standing;
        let ring = self.cache.geometry();
        let spare = match &self.shifter {
            // Of tokens that were there before half of the cache went, the last cannot be fed anew.
            Some(shifter) if reach > u64::from(ring.sinks + ring.slots) => {
                shifter.since(position).saturating_sub(1)
            }
            Some(_) => u64::MAX,
            None => self.cache.spare(reach),
        };
        let beyond = reach.saturating_sub(position);
        let lost = self.recomputes() || fed.saturating_add(beyond) > spare;
        if fed == 0 || !lost && fed < position {
            return Ok(());
        }
        let given = u64::from(self.standing.pending.is_some());
        let spare = spare.min(self.cache.spare(u64::MAX));
        Err(Error::Usage(format!(
            "{tokens} tokens cannot be taken back: this stream holds {} and keeps what {} need",
            self.position(),
            if self.recomputes() { given } else { spare.saturating_sub(beyond) + given },
        )))
    }

    fn recomputes(&self) -> bool {
        self.cache.settings().policy == Policy::Recompute
    }

    /// An error when nothing was fed yet.
    fn expect_begun(&self) -> Result<()> {
        match self.position() {
            0 => Err(Error::Usage("there is nothing to go on from: feed a token first".into())),
            _ => Ok(()),
        }
    }

    /// Makes the device's logits those of the last token that was given out.
    async fn catch_up(&mut self) -> Result<()> {
        self.leave_rows();
        self.expect_begun()?;
        self.room_for(0)?;
        let Standing { pending, ahead, stale, .. } = self.standing;
        if self.recomputes() {
            if pending.is_some() || stale {
                self.recompute(&[], || true).await?;
            }
            return Ok(());
        }
        self.expect_kept(0, ahead)?;
        self.standing.drop_ahead();
        if pending.is_some() {
            self.feed_pending();
            // What is under way is bounded.
            self.settle().await?;
        } else if self.standing.stale {
            self.feed_last_anew();
        }
        Ok(())
    }

    /// Moves the token counter on by whole laps of a full ring, as if they had passed.
    #[cfg(test)]
    pub(crate) fn fast_forward(&mut self, laps: u64) {
        self.standing.lead(laps * u64::from(self.cache.longest().slots));
    }

    /// An error when a cache that cannot forget has no room for so many tokens more.
    fn room_for(&self, tokens: u64) -> Result<()> {
        match self.cache.capacity() {
            Some(capacity) if self.position() + tokens > capacity => Err(Error::Usage(format!(
                "the dense cache holds {capacity} tokens and {} were asked of it; \
                 a streaming one has no such end",
                self.position() + tokens
            ))),
            _ => Ok(()),
        }
    }

    /// Whether everything given out has room, and `more` tokens besides.
    fn has_room(&self, more: u64) -> bool {
        self.room_for(more).is_ok()
    }

    /// From the logits to the next step's token, the likeliest that is not `banned` or one that is drawn.
    fn choice(&self, by: By<'_>) -> Result<Program> {
        let Activations { tokens, frame, .. } = &self.decode.act;
        let tokens = tokens.view("act.token", 0, &[tokens.len()]);
        let (gpu, cache) = (&*self.model.gpu, &self.cache);
        let (logits, chosen) = (&self.logits, &self.chosen);
        match by {
            By::Likeliest(banned) => {
                self.kernels.likeliest(gpu, cache, [logits, banned, &tokens, frame, chosen])
            }
            By::Draws(streams) => {
                self.kernels.choices(gpu, cache, streams, [logits, &tokens, frame, chosen])
            }
        }
    }

    /// Runs one step anew from where the stream is, with every dispatch timed by itself. Changes nothing that a
    /// later token depends on.
    pub async fn profile(&mut self) -> Result<Vec<KernelTime>> {
        self.catch_up().await?;
        // A state goes on from what the token before leaves, and else from further back, which would take longer.
        let attends = self.model.config.layers.iter().all(|kind| kind.attends());
        let spare = self.cache.spare(self.standing.reach);
        match self.standing.before(1) {
            Some(before) if !attends && spare >= 2 => self.submit_one(self.place() - 2, before),
            _ => {}
        }
        let (gpu, pass) = (&*self.model.gpu, &self.decode);
        let vocab = self.model.config.n_vocab;
        let none = Tensor::zeros(gpu, "banned", &[vocab.div_ceil(32)])?;
        let choice = self.choice(By::Likeliest(&none))?;
        let last: Vec<u32> = self.standing.last().into_iter().collect();
        pass.act.tokens.write(gpu, 0, &last);
        pass.act.frame.write(gpu, 0, &self.frame(self.place() - 1, 1));
        self.standing.epoch += 1;
        // Where all is computed anew, one step is not all.
        self.standing.stale |= self.recomputes();
        self.model.gpu.profile(&[&pass.body, &pass.head, &choice]).await
    }

    fn frame(&self, place: u64, tokens: usize) -> [u32; FRAME] {
        let kept = u32::from(self.sinks_kept);
        [reduce(place, self.cache.longest()), tokens as u32, kept, 0]
    }

    /// The position that the next token has for the cache.
    fn place(&self) -> u64 {
        self.standing.fed - self.shifter.as_ref().map_or(0, Shifter::gone)
    }

    /// The logits of the token that was fed or given out last. `[V]` An error where one is infinite or not a number.
    pub async fn logits(&mut self) -> Result<Vec<f32>> {
        self.catch_up().await?;
        let mut logits = vec![0.0; self.model.config.n_vocab];
        self.read_logits(&mut logits).await?;
        expect_numbers(&logits)?;
        Ok(logits)
    }

    async fn read_logits(&self, logits: &mut [f32]) -> Result<()> {
        let gpu = &*self.model.gpu;
        gpu.run(&[], &[(&self.logits, &self.logits_back)]);
        self.wait_for(&self.logits_back, logits).await
    }
}
