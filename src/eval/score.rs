//! A text through a stream's cache, with the negative log likelihood of every token of it.
use crate::gpu::{Pieces, Readback};
use crate::model::{Cache, CacheSettings, Model, Scoring, Shifter, reduce};
use crate::ops::NllParams;
use crate::reference;
use crate::session::{Portions, Session, WITHIN};
use crate::{Error, Result};
use std::sync::Arc;
use web_time::Instant;

/// A stream that is told its tokens and says how likely each was. It sees exactly what a session with the same
/// cache would, and reads back four bytes a token.
pub struct Scorer {
    model: Arc<Model>,
    cache: Cache,
    scoring: Scoring,
    /// Of `half-discard` alone.
    shifter: Option<Shifter>,
    /// One is read while the device fills the other.
    back: [Readback; 2],
    /// How much of a chunk goes into one submission.
    portions: Portions,
    /// Tokens fed so far.
    position: u64,
}

impl Scorer {
    /// Makes room for a stream and for the logits of a whole chunk.
    pub async fn new(model: Arc<Model>, settings: CacheSettings) -> Result<Self> {
        let gpu = &*model.gpu;
        let cache = Cache::new(gpu, &model.config, settings, &model.weights.divisors)?;
        let kernels = model.kernels((&settings).into()).await?;
        let scoring = Scoring::new(&model, &kernels, &cache, settings.chunk).await?;
        let shifter = Shifter::new(&model, &cache).await?;
        let back = [Readback::new(gpu, settings.chunk)?, Readback::new(gpu, settings.chunk)?];
        gpu.check()?;
        let portions = Portions::new(WITHIN);
        Ok(Self { model, cache, scoring, shifter, back, portions, position: 0 })
    }

    /// The cache as it is.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Bytes of activations on the device, the logits of a chunk among them.
    pub fn activation_bytes(&self) -> u64 {
        self.scoring.bytes()
    }

    /// Feeds `tokens` but for the last from an empty cache, and tells the nll of each but the first, in nats, a
    /// chunk at a time. Ends early when `told` gives false.
    pub async fn score(
        &mut self,
        tokens: &[u32],
        mut told: impl FnMut(&[f32]) -> bool,
    ) -> Result<()> {
        self.model.config.expect_ids(tokens)?;
        let fed = tokens.len().saturating_sub(1);
        if let Some(capacity) = self.cache.capacity().filter(|&room| fed as u64 > room) {
            return Err(Error::Usage(format!(
                "the dense cache holds {capacity} tokens and {fed} were to be scored"
            )));
        }
        self.position = 0;
        if let Some(shifter) = &mut self.shifter {
            shifter.reset();
        }
        let chunk = self.cache.settings().chunk;
        let mut nll = vec![0.0; chunk];
        let (mut at, mut back) = (0, 0);
        let mut under_way: Option<(usize, usize)> = None;
        let mut since = Instant::now();
        while at < fed {
            let room = match &mut self.shifter {
                Some(shifter) => shifter.room(&self.model, self.position) as usize,
                None => chunk,
            };
            let count = chunk.min(fed - at).min(room);
            let submissions = self.submit(&tokens[at..=at + count], back);
            // The device has work while the host waits for what was submitted before.
            if let Some((before, submissions)) = under_way.replace((count, submissions)) {
                if !self.tell(&mut nll[..before], 1 - back, at - before, &mut told).await? {
                    return Ok(());
                }
                let share = before as f64 / chunk as f64;
                let pieces = self.scoring.program.pieces() as f64;
                self.portions.took(pieces * share, submissions, since.elapsed());
                since = Instant::now();
            }
            (at, back) = (at + count, 1 - back);
        }
        if let Some((last, _)) = under_way {
            self.tell(&mut nll[..last], 1 - back, fed - last, &mut told).await?;
        }
        Ok(())
    }

    /// A pass over all of `tokens` but the last; gives into how many submissions it went.
    fn submit(&mut self, tokens: &[u32], back: usize) -> usize {
        let (gpu, scoring) = (&*self.model.gpu, &self.scoring);
        let count = tokens.len() - 1;
        let place = self.position - self.shifter.as_ref().map_or(0, Shifter::gone);
        let frame = [reduce(place, self.cache.longest()), count as u32, 1, 0];
        scoring.act.tokens.write(gpu, 0, &tokens[..count]);
        scoring.targets.write(gpu, 0, &tokens[1..]);
        scoring.act.frame.write(gpu, 0, &frame);
        let (program, copy) = (&scoring.program, [(&scoring.nll, &self.back[back])]);
        let (programs, share) = ([program], count as f64 / self.cache.settings().chunk as f64);
        let pieces = Pieces::of(&programs);
        let (all, mut at, mut submissions) = (pieces.count(), 0, 0);
        while at < all {
            let end = self.portions.end(at, &pieces, all, share);
            gpu.run_pieces(&programs, at..end, if end == all { &copy } else { &[] });
            (at, submissions) = (end, submissions + 1);
        }
        self.position += count as u64;
        submissions
    }

    async fn tell(
        &self,
        nll: &mut [f32],
        back: usize,
        at: usize,
        told: &mut impl FnMut(&[f32]) -> bool,
    ) -> Result<bool> {
        self.back[back].read(&self.model.gpu, nll).await?;
        if let Some(i) = nll.iter().position(|nll| !nll.is_finite()) {
            return Err(not_numbers(at + i + 1));
        }
        Ok(told(nll))
    }
}

/// The nll of token `index` of a text, its last W predecessors computed anew by `session`, whose policy is
/// `recompute`.
pub async fn recomputed(session: &mut Session, tokens: &[u32], index: usize) -> Result<f32> {
    let from = index.saturating_sub(session.cache().settings().window);
    session.reset();
    session.feed(&tokens[from..index]).await?;
    let nll = log_loss(&session.logits().await?, tokens[index]);
    if nll.is_finite() { Ok(nll) } else { Err(not_numbers(index)) }
}

/// The nll of a token, by the logits before it.
pub fn log_loss(logits: &[f32], target: u32) -> f32 {
    let mut of = [0.0];
    reference::nll(NllParams { vocab: logits.len() as u32 }, logits, &[target], &mut of);
    of[0]
}

fn not_numbers(index: usize) -> Error {
    Error::NotNumbers(format!("the model's logits for token {index} are not numbers"))
}
