//! A stream: feed it tokens, take tokens from it, for ever. What the command line and the web share.
use crate::gpu::{Program, Readback, Tensor};
use crate::model::{Activations, Cache, CacheSettings, Kernels, Model, Pass, Policy, reduce};
use crate::ops::{FRAME, NO_TOKEN};
use crate::text::{Sampler, SamplerSettings};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// One stream over one model. Its memory is fixed when it is made.
pub struct Session {
    model: Arc<Model>,
    cache: Cache,
    /// A chunk of a prompt, and one token.
    prefill: Pass,
    decode: Pass,
    /// From the logits to the next step's token.
    greedy: Program,
    logits: Tensor, // [1, V]
    banned: Tensor, // [ceil(V/32)] bits
    logits_back: Readback,
    token_back: [Readback; 2],
    /// Tokens fed so far. Never wraps.
    position: u64,
    /// A token of the stream that was given out, but not fed yet.
    pending: Option<u32>,
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
        let gpu = &*model.gpu;
        let vocab = model.config.n_vocab;
        let factors = model.weights.rope_freqs.as_deref();
        let cache = Cache::new(gpu, &model.config, settings, factors)?;
        let kernels = Kernels::new(&model, settings.kv).await?;
        let logits = Tensor::zeros(gpu, "act.logits", &[1, vocab])?;
        let banned = Tensor::zeros(gpu, "banned", &[vocab.div_ceil(32)])?;
        let one = Activations::new(gpu, &model, 1)?;
        let decode = Pass::fused(&model, &kernels, &cache, one, &logits)?;
        let many = Activations::new(gpu, &model, settings.chunk)?;
        let prefill = Pass::new(&model, &kernels, &cache, many, &logits)?;
        let greedy = kernels.greedy(gpu, [&logits, &banned, &decode.act.tokens])?;
        let logits_back = Readback::new(gpu, vocab);
        let token_back = [Readback::new(gpu, 1), Readback::new(gpu, 1)];
        let session = Self {
            model,
            cache,
            prefill,
            decode,
            greedy,
            logits,
            banned,
            logits_back,
            token_back,
            position: 0,
            pending: None,
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
        self.position + u64::from(self.pending.is_some())
    }

    /// Tokens that no query can look back on any more.
    pub fn evicted(&self) -> u64 {
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
        self.prefill.bytes() + self.decode.bytes() + self.logits.size() + self.banned.size()
    }

    /// Starts anew. What the cache held is not seen again.
    pub fn reset(&mut self) {
        self.position = 0;
        self.pending = None;
        self.epoch += 1;
        self.recent.clear();
    }

    /// Takes back the last `tokens` of the stream, as if they had never been there. `last` is the token before
    /// them. Exact; an error where the ring has already lost what a query would have to see.
    pub async fn rewind(&mut self, tokens: u64, last: u32) -> Result<()> {
        let ring = self.cache.geometry();
        let (stored, spare) = (ring.sinks + ring.slots, u64::from(ring.slots - ring.window));
        let given = u64::from(self.pending.is_some());
        let fed = tokens.saturating_sub(given);
        let recompute = self.cache.settings().policy == Policy::Recompute;
        let lost = recompute || self.position > u64::from(stored) && fed > spare;
        if fed > 0 && (lost || fed >= self.position) {
            return Err(Error::Usage(format!(
                "{tokens} tokens cannot be taken back: this stream holds {} and keeps what {} need",
                self.position(),
                if recompute { given } else { spare + given },
            )));
        }
        self.epoch += 1;
        if tokens > 0 {
            self.pending = None;
        }
        if fed > 0 {
            self.position -= fed + 1;
            self.run_chunk(&[last], true, false);
        }
        Ok(())
    }

    /// Moves the token counter on by whole laps of a full ring, as if they had passed.
    #[cfg(test)]
    pub(crate) fn fast_forward(&mut self, laps: u64) {
        self.position += laps * u64::from(self.cache.geometry().slots);
    }

    /// Takes in tokens: a prompt of any length, or one token. Their logits can be read afterwards.
    pub async fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        let vocab = self.model.config.n_vocab;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Usage(format!("token {id} is not one of the model's {vocab}")));
        }
        self.room_for(tokens.len() as u64)?;
        self.epoch += 1;
        if let Some(token) = self.pending.take() {
            self.take_in(&[token]).await?;
        }
        self.take_in(tokens).await
    }

    async fn take_in(&mut self, tokens: &[u32]) -> Result<()> {
        match self.cache.settings().policy {
            Policy::Recompute => self.recompute(tokens).await,
            _ => self.run_chunks(tokens).await,
        }
    }

    /// Passes over all the tokens, the last with logits.
    async fn run_chunks(&mut self, tokens: &[u32]) -> Result<()> {
        let chunks = tokens.chunks(self.cache.settings().chunk);
        let last = chunks.len().saturating_sub(1);
        for (i, chunk) in chunks.enumerate() {
            self.run_chunk(chunk, i == last, false);
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

    /// Submits one pass over at most a chunk of tokens. `read_logits`: and their copy to the host.
    fn run_chunk(&mut self, tokens: &[u32], with_logits: bool, read_logits: bool) {
        let gpu = &*self.model.gpu;
        let pass = if tokens.len() == 1 { &self.decode } else { &self.prefill };
        pass.act.tokens.write(gpu, 0, tokens);
        pass.act.frame.write(gpu, 0, &self.frame(tokens.len()));
        let programs = [&pass.body, &pass.head];
        let copies = [(&self.logits, &self.logits_back)];
        gpu.run(&programs[..1 + usize::from(with_logits)], &copies[..usize::from(read_logits)]);
        self.position += tokens.len() as u64;
    }

    fn frame(&self, tokens: usize) -> [u32; FRAME] {
        let kept = u32::from(self.sinks_kept);
        [reduce(self.position, self.cache.geometry()), tokens as u32, kept]
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
        gpu.run(&[], &[(&self.decode.act.tokens, &self.token_back[0])]);
        self.token_back[0].read(gpu, &mut [0u32]).await
    }

    /// The logits of the token fed last. `[V]`
    pub async fn logits(&mut self) -> Result<Vec<f32>> {
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
        let on_gpu = settings.is_greedy() && self.cache.settings().policy != Policy::Recompute;
        let sampler = Sampler::new(settings, vocab, banned)?;
        let logits = vec![0.0; if on_gpu { 0 } else { vocab }];
        Ok(Generation { sampler, logits, ahead_at: None, on_gpu, step: 0 })
    }
}

/// Tokens one after another. Greedy ones are chosen on the device, where the next step starts
/// before the host has read the last. It can be dropped at any time: the session goes on from the last
/// token that was given out, whether it is fed, rewound or generated from next.
pub struct Generation {
    sampler: Sampler,
    logits: Vec<f32>,
    /// A choice is under way on the device, to be read from `token_back[step % 2]`: the one that follows so
    /// many tokens of that epoch.
    ahead_at: Option<(u64, u64)>,
    on_gpu: bool,
    step: usize,
}

impl Generation {
    /// Tells the penalties of a token that was not generated here, such as the prompt's.
    pub fn accept(&mut self, token: u32) {
        self.sampler.accept(token);
    }

    /// The next token; `None` when a dense cache is full.
    pub async fn next(&mut self, session: &mut Session) -> Result<Option<u32>> {
        if !session.has_room(0) {
            return Ok(None);
        }
        match self.on_gpu {
            true => self.next_greedy(session).await,
            false => self.next_sampled(session).await.map(Some),
        }
    }

    async fn next_sampled(&mut self, session: &mut Session) -> Result<u32> {
        match session.pending.take() {
            Some(token) if session.cache.settings().policy == Policy::Recompute => {
                session.recompute(&[token]).await?;
                session.read_logits(&mut self.logits).await?;
            }
            Some(token) => {
                session.run_chunk(&[token], true, true);
                session.logits_back.read(&session.model.gpu, &mut self.logits).await?;
            }
            None => session.read_logits(&mut self.logits).await?,
        }
        let token = self.sampler.sample(&mut self.logits)?;
        self.sampler.accept(token);
        session.pending = Some(token);
        Ok(token)
    }

    async fn next_greedy(&mut self, session: &mut Session) -> Result<Option<u32>> {
        if let Some(token) = session.pending.take() {
            session.run_chunk(&[token], true, false);
        }
        let gpu = &*session.model.gpu;
        let tokens = &session.decode.act.tokens;
        let back = self.step % 2;
        if self.ahead_at != Some((session.epoch, session.position)) {
            gpu.run(&[&session.greedy], &[(tokens, &session.token_back[back])]);
        }
        // The step after the one awaited starts from the token on the device.
        let room = session.has_room(1);
        if room {
            let pass = &session.decode;
            pass.act.frame.write(gpu, 0, &session.frame(1));
            let copy = (tokens, &session.token_back[1 - back]);
            gpu.run(&[&pass.body, &pass.head, &session.greedy], &[copy]);
            session.position += 1;
        }
        self.ahead_at = room.then_some((session.epoch, session.position));
        self.step += 1;
        let mut token = [0u32];
        session.token_back[back].read(gpu, &mut token).await?;
        let [token] = token;
        if token == NO_TOKEN {
            return Err(Error::Usage(
                "the model's logits are not numbers; its file is damaged or not for this engine"
                    .into(),
            ));
        }
        if !room {
            session.pending = Some(token);
        }
        Ok(Some(token))
    }
}
