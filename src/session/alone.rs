//! Tokens that are chosen one by one, because what may come next depends on the last, or because somebody watches.
use super::generation::Choice;
use super::{Constraint, Generation, Session};
use crate::ops::NO_TOKEN;
use crate::text::{Sampler, expect_numbers};
use crate::{Error, Result};
use web_time::Instant;

/// How likely a token was, and which were likeliest.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The natural logarithm of the probability that the model gave the token, before anything was banned, biased or
    /// filtered.
    pub token: f64,
    /// The likeliest tokens and the same of each, the likeliest first; of equals the lower id.
    pub top: Vec<(u32, f64)>,
}

impl Logprobs {
    /// Of a token that was chosen from `logits` `[V]`, and of so many likeliest ones.
    pub fn new(logits: &[f32], token: u32, top: usize) -> Self {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let beside = |logit: f32| f64::from(logit) - f64::from(highest);
        let sum: f64 = logits.iter().map(|&logit| beside(logit).exp()).sum();
        let of = |id: u32| {
            logits.get(id as usize).map_or(f64::NEG_INFINITY, |&logit| beside(logit) - sum.ln())
        };
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let order =
            |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
        let top = top.min(ids.len());
        if top < ids.len() && top > 0 {
            ids.select_nth_unstable_by(top - 1, order);
        }
        ids.truncate(top);
        ids.sort_unstable_by(order);
        Self { token: of(token), top: ids.into_iter().map(|id| (id, of(id))).collect() }
    }
}

/// Whether the bit of an id is set, of 32 to a word. What is beyond them is not.
pub(super) fn bit(bits: &[u32], id: u32) -> bool {
    bits.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}

/// What makes a generation go token by token.
#[derive(Default)]
pub(super) struct Alone {
    constraint: Option<Box<dyn Constraint>>,
    /// How many likeliest tokens somebody wants to see.
    watch: Option<usize>,
    logprobs: Option<Logprobs>,
    /// What may not come next. `[ceil(V/32)]`
    bits: Vec<u32>,
    /// Into how many submissions the last step went.
    submissions: usize,
}

impl Alone {
    pub(super) fn wanted(&self) -> bool {
        self.constraint.is_some() || self.watch.is_some()
    }

    pub(super) fn is_constrained(&self) -> bool {
        self.constraint.is_some()
    }

    /// Whether a token may not come next.
    pub(super) fn bans(&self, id: u32) -> bool {
        bit(&self.bits, id)
    }

    /// Asks which tokens may not come next.
    fn ask(&mut self, sampler: &Sampler, vocab: usize) -> Result<()> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        self.bits = sampler.banned_bits(vocab);
        constraint.ban(&mut self.bits)?;
        let none = (0..vocab as u32).all(|id| bit(&self.bits, id));
        match none {
            false => Ok(()),
            true => Err(Error::Grammar(
                "every token that the output's rules allow here is banned otherwise; ban less, and not the tokens that \
                 end a text"
                    .into(),
            )),
        }
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.constraint.as_mut().map_or(Ok(()), |constraint| constraint.accept(token))
    }
}

impl Generation {
    /// Holds what is generated from now on to rules. Each token is then chosen in a submission of its own.
    pub fn constrain(&mut self, constraint: Box<dyn Constraint>) {
        self.alone.constraint = Some(constraint);
        self.at = None;
    }

    /// Takes back the last so many tokens for the rules that the output is held to, as [`Session::rewind`] does for the
    /// stream.
    pub fn roll_back(&mut self, tokens: usize) -> Result<()> {
        match &mut self.alone.constraint {
            Some(constraint) => constraint.roll_back(tokens),
            None => Ok(()),
        }
    }

    /// Notes for each token from now on how likely it was, and so many of the likeliest. Each token is then chosen in a
    /// submission of its own, and its logits are read.
    pub fn watch(&mut self, top: usize) {
        self.alone.watch = Some(top);
        self.at = None;
    }

    /// How likely the token was that was given out last, if that is [watched](Self::watch).
    pub fn logprobs(&self) -> Option<&Logprobs> {
        self.alone.logprobs.as_ref()
    }

    /// The device's choice of a token among those that may come. The pass over it is under way before it is read.
    pub(super) async fn next_alone(&mut self, session: &mut Session) -> Result<u32> {
        let asked = Instant::now();
        if self.at.take() != Some(session.standing.mark()) {
            self.begin_alone(session).await?;
        }
        if self.queue.is_empty() {
            self.force(session).await?;
        }
        if let Some(token) = self.queue.pop_front() {
            self.give_alone(session, token)?;
            return Ok(token);
        }
        // The device is busy with it while the rules are asked.
        session.feed_pending();
        let vocab = session.model.config.n_vocab;
        self.alone.ask(&self.sampler, vocab)?;
        let Some(Choice { program, banned, .. }) = self.choice.as_deref() else {
            return Err(Error::Usage("the host chooses in this stream".into()));
        };
        let gpu = &*session.model.gpu;
        if self.alone.is_constrained() {
            banned.write(gpu, 0, &self.alone.bits);
        }
        session.write_step();
        let copies =
            [(&session.chosen, &session.chosen_back[0]), (&session.logits, &session.logits_back)];
        gpu.run(&[program], &copies[..1 + usize::from(self.alone.watch.is_some())]);
        let before = self.alone.submissions;
        if session.room_ahead(self.most) > 0 {
            self.alone.submissions = session.submit_ahead();
        }
        let mut token = [0];
        session.wait_for(&session.chosen_back[0], &mut token).await?;
        if self.alone.watch.is_some() {
            self.logits.resize(vocab, 0.0);
            session.wait_for(&session.logits_back, &mut self.logits).await?;
        }
        let now = Instant::now();
        if let Some(last) = self.last_read.replace(now) {
            self.learn(session, (1, before), asked - last, now - last);
        }
        let [token] = token;
        if token == NO_TOKEN {
            return Err(self.why_none(session).await);
        }
        self.give_alone(session, token)?;
        Ok(token)
    }

    fn give_alone(&mut self, session: &mut Session, token: u32) -> Result<()> {
        self.note_alone(token)?;
        match session.standing.ahead {
            0 => session.standing.pending = Some(token),
            _ => session.standing.ahead -= 1,
        }
        session.standing.note(&[token]);
        self.sampler.drawn(token);
        self.at = Some(session.standing.mark());
        Ok(())
    }

    /// Feeds the tokens that have to come next together, if there are several and nobody wants to see their logits.
    async fn force(&mut self, session: &mut Session) -> Result<()> {
        let constraint = self.alone.constraint.as_mut().filter(|_| self.alone.watch.is_none());
        let mut forced = constraint.map_or(Vec::new(), |constraint| constraint.forced());
        forced.truncate(session.room_ahead(self.most).min(self.most));
        let vocab = session.model.config.n_vocab;
        if forced.len() < 2
            || forced.iter().any(|&id| self.sampler.bans(id) || id as usize >= vocab)
        {
            return Ok(());
        }
        session.feed_ahead(&forced).await?;
        self.last_read = None;
        self.queue.extend(&forced);
        // The device has not drawn them itself.
        if let Some(Choice { draws: Some(draws), .. }) = self.choice.as_deref() {
            let (recent, count) = self.sampler.after(&forced);
            draws.set(&session.model.gpu, count, recent.into_iter());
        }
        Ok(())
    }

    /// Somebody else has led the stream on, or nobody yet.
    async fn begin_alone(&mut self, session: &mut Session) -> Result<()> {
        session.catch_up().await?;
        self.queue.clear();
        self.last_read = None;
        if let Some(Choice { draws: Some(draws), .. }) = self.choice.as_deref() {
            let (recent, count) = self.sampler.state();
            draws.set(&session.model.gpu, count, recent);
        }
        Ok(())
    }

    /// The host's choice of a token among those that may come, from logits that were read.
    pub(super) fn sample_alone(&mut self) -> Result<u32> {
        self.alone.ask(&self.sampler, self.logits.len())?;
        expect_numbers(&self.logits)?;
        let watched = self.alone.watch.map(|_| self.logits.clone());
        if self.alone.is_constrained() {
            for (id, logit) in (0..).zip(&mut self.logits) {
                if self.alone.bans(id) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let token = self.sampler.sample(&mut self.logits)?;
        self.logits = watched.unwrap_or(std::mem::take(&mut self.logits));
        self.note_alone(token)?;
        Ok(token)
    }

    fn note_alone(&mut self, token: u32) -> Result<()> {
        self.alone.accept(token)?;
        let watched = self.alone.watch.map(|top| Logprobs::new(&self.logits, token, top));
        self.alone.logprobs = watched;
        Ok(())
    }
}
