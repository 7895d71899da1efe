//! Tokens that are chosen one by one, because what may come next depends on the last, or because somebody watches.
use super::{Constraint, Generation, Session};
use crate::ops::NO_TOKEN;
use crate::text::expect_numbers;
use crate::{Error, Result};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Rules that an output is held to, and what they were told of it.
pub(super) struct Rules {
    constraint: Box<dyn Constraint>,
    /// What may not come whatever they say, and what may not come next. `[ceil(V/32)]` each
    always: Vec<u32>,
    bits: Vec<u32>,
    vocab: usize,
    /// Tokens that they were told of, and that were not given out yet.
    ahead: usize,
    /// How many tokens are worth being fed together, and the most that are.
    worth: RangeInclusive<usize>,
}

/// The rules, whoever else may hold them.
pub(super) fn held(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rules {
    /// Which tokens may not come next.
    pub(super) fn ask(&mut self) -> Result<&[u32]> {
        self.bits.clone_from(&self.always);
        self.constraint.ban(&mut self.bits)?;
        let (whole, beyond) = (self.vocab / 32, u32::MAX << (self.vocab % 32));
        let (words, rest) = self.bits.split_at(whole);
        let none = words.iter().all(|&word| word == u32::MAX)
            && rest.first().is_none_or(|&word| word | beyond == u32::MAX);
        match none {
            false => Ok(&self.bits),
            true => Err(Error::Grammar(
                "every token that the output's rules allow here is banned otherwise; ban less, and not the tokens that \
                 end a text"
                    .into(),
            )),
        }
    }

    /// Tells of a token before it is given out; gives those that have to come next, if they are worth being fed
    /// together with it, where there is room for so many.
    pub(super) fn took_ahead(&mut self, token: u32, room: u64) -> Result<Vec<u32>> {
        self.constraint.accept(token)?;
        self.ahead += 1;
        Ok(self.forced(room.saturating_sub(1)))
    }

    /// The tokens that have to come next, if they are worth being fed together.
    pub(super) fn forced(&mut self, room: u64) -> Vec<u32> {
        let mut forced = self.constraint.forced();
        forced.truncate(room.min(*self.worth.end() as u64) as usize);
        let may = |&id: &u32| (id as usize) < self.vocab && !bit(&self.always, id);
        let worth = self.worth.contains(&forced.len()) && forced.iter().all(may);
        if worth { forced } else { Vec::new() }
    }

    /// A token that they were told of was given out.
    fn gave(&mut self) {
        self.ahead = self.ahead.saturating_sub(1);
    }

    /// Takes back what they were told of and was not given out.
    fn recall(&mut self) -> Result<()> {
        self.constraint.roll_back(std::mem::take(&mut self.ahead))
    }
}

/// What makes a generation go token by token.
#[derive(Default)]
pub(super) struct Alone {
    rules: Option<Arc<Mutex<Rules>>>,
    /// How many likeliest tokens somebody wants to see.
    pub(super) watch: Option<usize>,
    logprobs: Option<Logprobs>,
    /// After the token that was given out: what is fed with it, before anything else comes.
    pub(super) forced: Vec<u32>,
    /// Into how many submissions the last step went.
    submissions: usize,
}

impl Alone {
    pub(super) fn wanted(&self) -> bool {
        self.rules.is_some() || self.watch.is_some()
    }

    pub(super) fn is_constrained(&self) -> bool {
        self.rules.is_some()
    }

    /// A token came with this: how likely it was, and what is fed before anything else comes.
    pub(super) fn came(&mut self, logprobs: Option<Logprobs>, forced: Vec<u32>) {
        (self.logprobs, self.forced) = (logprobs, forced);
        if let Some(rules) = &self.rules {
            held(rules).gave();
        }
    }

    /// Whether a token may not come next.
    pub(super) fn bans(&self, id: u32) -> bool {
        self.rules.as_ref().is_some_and(|rules| bit(&held(rules).bits, id))
    }

    /// What whoever leads the stream on with others asks.
    pub(super) fn rules(&self) -> Option<Arc<Mutex<Rules>>> {
        self.rules.clone()
    }

    /// Tells the rules of a token that they did not know of.
    pub(super) fn accept(&self, token: u32) -> Result<()> {
        self.rules.as_ref().map_or(Ok(()), |rules| held(rules).constraint.accept(token))
    }
}

impl Generation {
    /// Holds what is generated from now on to rules. They are asked between one token and the next, so that no step
    /// is submitted before the last was read.
    pub fn constrain(&mut self, constraint: Box<dyn Constraint>) {
        let (always, bits, vocab, ahead) = (Vec::new(), Vec::new(), 0, 0);
        let rules = Rules { constraint, always, bits, vocab, ahead, worth: 2..=self.most };
        self.alone.rules = Some(Arc::new(Mutex::new(rules)));
        self.at = None;
    }

    /// Takes back the last so many tokens for the rules that the output is held to, as [`Session::rewind`] does for the
    /// stream.
    pub fn roll_back(&mut self, tokens: usize) -> Result<()> {
        let Some(rules) = &self.alone.rules else { return Ok(()) };
        // Nobody else tells them of more.
        (self.seat, self.at) = (None, None);
        let mut rules = held(rules);
        rules.recall()?;
        rules.constraint.roll_back(tokens)
    }

    /// Notes for each token from now on how likely it was, and so many of the likeliest. Its logits are read for it, so that
    /// no step is submitted before the last was read.
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
        if let Some(token) = self.give_queued(session)? {
            return Ok(token);
        }
        let before = self.alone.submissions;
        let token = self.choose_alone(session, true).await?;
        let now = Instant::now();
        if let Some(last) = self.last_read.replace(now) {
            self.learn(session, (1, before), asked - last, now - last);
        }
        self.give_alone(session, token);
        Ok(token)
    }

    /// The choice from the logits that are there, of which the rules are told; if that is wanted, the device goes on
    /// with it.
    pub(super) async fn choose_alone(
        &mut self,
        session: &mut Session,
        goes_on: bool,
    ) -> Result<u32> {
        // The device is busy with it while the rules are asked.
        session.feed_pending();
        let Some(choice) = self.choice.clone() else {
            return Err(Error::Usage("the host chooses in this stream".into()));
        };
        let gpu = &*session.model.gpu;
        if let Some(rules) = &self.alone.rules {
            choice.banned.write(gpu, 0, held(rules).ask()?);
        }
        session.write_step();
        let copies =
            [(&session.chosen, &session.chosen_back[0]), (&session.logits, &session.logits_back)];
        gpu.run(&[&choice.program], &copies[..1 + usize::from(self.alone.watch.is_some())]);
        if goes_on && session.room_ahead(self.most) > 0 {
            self.alone.submissions = session.submit_ahead();
        }
        let mut token = [0];
        session.wait_for(&session.chosen_back[0], &mut token).await?;
        if self.alone.watch.is_some() {
            self.logits.resize(session.model.config.n_vocab, 0.0);
            session.wait_for(&session.logits_back, &mut self.logits).await?;
        }
        let [token] = token;
        if token == NO_TOKEN {
            return Err(self.why_none(session).await);
        }
        self.note_alone(token)?;
        Ok(token)
    }

    /// Gives out what has come already, if anything has.
    pub(super) fn give_queued(&mut self, session: &mut Session) -> Result<Option<u32>> {
        let Some(token) = self.queue.pop_front() else { return Ok(None) };
        self.alone.accept(token)?;
        self.give_alone(session, token);
        Ok(Some(token))
    }

    /// Notes that a token is given out.
    pub(super) fn give_alone(&mut self, session: &mut Session, token: u32) {
        match session.standing.ahead {
            0 => session.standing.pending = Some(token),
            _ => session.standing.ahead -= 1,
        }
        session.standing.note(&[token]);
        self.sampler.drawn(token);
        self.at = Some(session.standing.mark());
    }

    /// Feeds the tokens that have to come next together, if they are worth it.
    pub(super) async fn force(&mut self, session: &mut Session) -> Result<()> {
        let room = session.room_ahead(self.most) as u64;
        let rules = self.alone.rules.as_ref();
        let forced = rules.map_or(Vec::new(), |rules| held(rules).forced(room));
        self.feed_forced(session, forced).await
    }

    /// Feeds what has to come next, and queues it.
    pub(super) async fn feed_forced(
        &mut self,
        session: &mut Session,
        forced: Vec<u32>,
    ) -> Result<()> {
        if forced.is_empty() {
            return Ok(());
        }
        session.feed_ahead(&forced).await?;
        self.last_read = None;
        if let Some(choice) = &self.choice {
            choice.tell_ahead(&session.model.gpu, &self.sampler, &forced);
        }
        self.queue.extend(forced);
        Ok(())
    }

    /// Somebody else has led the stream on, or nobody yet.
    pub(super) async fn begin_alone(&mut self, session: &mut Session) -> Result<()> {
        session.catch_up().await?;
        self.queue.clear();
        self.last_read = None;
        if let Some(choice) = &self.choice {
            choice.tell(&session.model.gpu, &self.sampler);
        }
        self.tell_rules(session)
    }

    /// Tells the rules what is true of this stream, and of no token that was not given out.
    fn tell_rules(&self, session: &Session) -> Result<()> {
        let Some(rules) = &self.alone.rules else { return Ok(()) };
        let rules = &mut *held(rules);
        rules.vocab = session.model.config.n_vocab;
        rules.always = self.sampler.banned_bits(rules.vocab);
        // Fewer go through a pass each, which others would not share.
        let few = if session.shares_passes() { session.kernels.few_tokens() } else { 0 };
        // Who watches wants the logits of each.
        let most = if self.alone.watch.is_some() { 0 } else { self.most };
        rules.worth = few.max(2)..=most;
        rules.recall()
    }

    /// The host's choice of a token among those that may come, from logits that were read.
    pub(super) fn sample_alone(&mut self, session: &Session) -> Result<u32> {
        expect_numbers(&self.logits)?;
        let watched = self.alone.watch.map(|_| self.logits.clone());
        self.tell_rules(session)?;
        if let Some(rules) = &self.alone.rules {
            let mut rules = held(rules);
            let bits = rules.ask()?;
            for (id, logit) in (0..).zip(&mut self.logits) {
                if bit(bits, id) {
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
        let watched = self.alone.watch;
        self.alone.logprobs = watched.map(|top| Logprobs::new(&self.logits, token, top));
        Ok(())
    }
}
