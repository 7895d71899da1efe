//! Tokens out of a session, one after another.
use super::Session;
use super::alone::{Alone, bit};
use super::pace::{MOST_STEPS, Pace, Steps};
use super::together::Place;
use crate::gpu::{Gpu, Program, Tensor};
use crate::ops::{NO_TOKEN, SamplerState};
use crate::text::{Sampler, SamplerSettings};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use web_time::Instant;

/// Tokens one after another. They are chosen on the device, several steps to a submission, and the
/// next submission starts before the host has read the last. It can be dropped at any time, and so can the future of
/// [`next`](Self::next): the session goes on from the last token that was given out, whether it is fed, rewound or
/// generated from next.
pub struct Generation {
    pub(super) sampler: Sampler,
    pub(super) logits: Vec<f32>,
    /// What makes it go token by token, if anything does.
    pub(super) alone: Alone,
    /// What chooses on the device; none where every token is computed anew, and the host chooses.
    pub(super) choice: Option<Arc<Choice>>,
    /// Where streams go on together.
    pub(super) seat: Option<Place>,
    /// Where the stream was when this generation last led it on. None while it cannot know.
    pub(super) at: Option<(u64, u64)>,
    /// Chosen, read, and not given out yet.
    pub(super) queue: VecDeque<u32>,
    /// After what is in the queue, the device found no token to choose.
    none_left: bool,
    /// Choices that `chosen_back[back]` is waited for.
    under_way: usize,
    back: usize,
    /// Into how many submissions each of the two went.
    submissions: [usize; 2],
    /// Steps of the next submission, what the caller has said they are, and the most there may be.
    steps: Steps,
    pub(super) pinned: Option<usize>,
    pub(super) most: usize,
    pub(super) last_read: Option<Instant>,
}

/// From the logits to a token, on the device.
pub(super) struct Choice {
    pub(super) program: Program,
    pub(super) banned: Tensor, // [ceil(V/32)] bits
    /// None where the likeliest is all that is wanted.
    draws: Option<SamplerState>,
}

/// What a choice is made by.
pub(super) enum By<'a> {
    /// The likeliest, without those that are banned: bits `[ceil(V/32)]`.
    Likeliest(&'a Tensor),
    /// A draw.
    Draws(&'a SamplerState),
}

impl Session {
    /// Goes on from what was fed: a source of tokens that does not end by itself. `banned` ids are
    /// never chosen.
    pub fn generate(&self, settings: SamplerSettings, banned: &[u32]) -> Result<Generation> {
        self.expect_begun()?;
        let vocab = self.model.config.n_vocab;
        let sampler = Sampler::new(settings, vocab, banned)?;
        let choice = match self.recomputes() {
            true => None,
            false => Some(Arc::new(Choice::new(self, &sampler)?)),
        };
        let logits = vec![0.0; if choice.is_none() { vocab } else { 0 }];
        // Twice as many less two are ahead; half of what can be taken back is left to who reads the stream.
        let most = (self.cache.spare(u64::MAX) as usize / 4 + 1).clamp(1, MOST_STEPS);
        Ok(Generation {
            sampler,
            logits,
            alone: Alone::default(),
            choice,
            seat: None,
            at: None,
            queue: VecDeque::with_capacity(MOST_STEPS),
            none_left: false,
            under_way: 0,
            back: 0,
            submissions: [0; 2],
            steps: Steps::new(Pace::default(), most),
            pinned: None,
            most,
            last_read: None,
        })
    }
}

impl Session {
    /// [`Session::generate`] at a pace, with penalties for all that is remembered, whoever has said it.
    pub fn generate_on(
        &self,
        settings: SamplerSettings,
        banned: &[u32],
        pace: Pace,
    ) -> Result<Generation> {
        let mut generation = self.generate(settings, banned)?;
        generation.set_pace(pace);
        self.recent().for_each(|id| generation.accept(id));
        Ok(generation)
    }
}

impl Choice {
    fn new(session: &Session, sampler: &Sampler) -> Result<Self> {
        let (gpu, vocab) = (&*session.model.gpu, session.model.config.n_vocab);
        let (by, _) = sampler.settings();
        let draws = match &session.seated {
            Some(seated) => Some(seated.draws(by)?),
            None if by.is_greedy() => None,
            None => Some(SamplerState::new(gpu, by, vocab)?),
        };
        let banned = match &draws {
            Some(draws) => draws.banned.view("banned", 0, &[vocab.div_ceil(32)]),
            None => Tensor::zeros(gpu, "banned", &[vocab.div_ceil(32)])?,
        };
        let program = session.choice(match &draws {
            Some(draws) => By::Draws(draws),
            None => By::Likeliest(&banned),
        })?;
        Ok(Self { program, banned, draws })
    }

    /// Tells the device all that the next choice depends on: another generation of the same session may have chosen otherwise.
    pub(super) fn tell(&self, gpu: &Gpu, sampler: &Sampler) {
        match &self.draws {
            Some(draws) => draws.tell(gpu, sampler),
            None => self.banned.write(gpu, 0, &sampler.banned_bits(32 * self.banned.len())),
        }
    }

    /// Tells it of tokens that it has not chosen itself.
    pub(super) fn tell_ahead(&self, gpu: &Gpu, sampler: &Sampler, ahead: &[u32]) {
        if let Some(draws) = &self.draws {
            draws.tell_draws(gpu, sampler, ahead);
        }
    }
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
        self.pinned = Some(steps.clamp(1, self.most));
    }

    /// How far the device may work ahead of who reads: [`Pace::Interactive`] unless told otherwise.
    pub fn set_pace(&mut self, pace: Pace) {
        self.steps.set_pace(pace);
    }

    /// The next token; `None` when a dense cache is full. An error where a logit is infinite or not a number.
    pub async fn next(&mut self, session: &mut Session) -> Result<Option<u32>> {
        session.expect_begun()?;
        if !session.has_room(0) {
            return Ok(None);
        }
        let token = match (&self.choice, &session.seated) {
            (Some(_), Some(_)) => self.next_of_rows(session).await?,
            (Some(_), None) if self.alone.wanted() => self.next_alone(session).await?,
            (Some(_), None) => self.next_chosen(session).await?,
            (None, _) => self.next_sampled(session).await?,
        };
        Ok(Some(token))
    }

    async fn next_sampled(&mut self, session: &mut Session) -> Result<u32> {
        session.catch_up().await?;
        session.read_logits(&mut self.logits).await?;
        let token = self.sample_alone(session)?;
        self.sampler.accept(token);
        session.standing.pending = Some(token);
        session.standing.note(&[token]);
        Ok(token)
    }

    /// The device's choice.
    async fn next_chosen(&mut self, session: &mut Session) -> Result<u32> {
        // Whoever drops this future in the middle leaves a generation that starts anew from what was given out.
        let undisturbed = self.at.take() == Some(session.standing.mark());
        if !undisturbed {
            // Somebody else has led the stream on, or nobody yet.
            session.catch_up().await?;
            self.queue.clear();
            self.none_left = false;
            self.last_read = None;
            if let Some(choice) = &self.choice {
                choice.tell(&session.model.gpu, &self.sampler);
                session.write_step();
                session.submit_steps(0, &choice.program, &session.chosen_back[self.back]);
            }
            self.under_way = 1;
        }
        if self.queue.is_empty() && !self.none_left {
            self.refill(session).await?;
        }
        let Some(token) = self.queue.pop_front() else {
            return Err(self.why_none(session).await);
        };
        match session.standing.ahead {
            0 => session.standing.pending = Some(token),
            _ => session.standing.ahead -= 1,
        }
        session.standing.note(&[token]);
        self.sampler.drawn(token);
        self.at = Some(session.standing.mark());
        Ok(token)
    }

    /// Submits the next steps, then waits for the choices before them.
    async fn refill(&mut self, session: &mut Session) -> Result<()> {
        let asked = Instant::now();
        let (count, back) = (self.under_way, self.back);
        let room = session.room_ahead(self.most);
        // The device goes on from the token it has chosen itself.
        let steps = self.pinned.unwrap_or(self.steps.steps()).min(room);
        if let (1.., Some(choice)) = (steps, &self.choice) {
            session.write_step();
            let to = &session.chosen_back[1 - back];
            self.submissions[1 - back] = session.submit_steps(steps, &choice.program, to);
            session.standing.lead(steps as u64);
            session.standing.ahead += steps as u64;
        }
        self.under_way = steps;
        self.back = 1 - back;
        let mut tokens = [0; MOST_STEPS];
        session.wait_for(&session.chosen_back[back], &mut tokens[..count]).await?;
        let found = tokens[..count].iter().take_while(|&&token| token != NO_TOKEN).count();
        self.none_left = found < count;
        self.queue.extend(&tokens[..found]);
        let now = Instant::now();
        if let Some(before) = self.last_read.replace(now) {
            self.learn(session, (count, self.submissions[back]), asked - before, now - before);
        }
        Ok(())
    }

    /// What was read so long after what was read before, of which somebody else has had a part.
    pub(super) fn learn(
        &mut self,
        session: &mut Session,
        (count, submissions): (usize, usize),
        elsewhere: Duration,
        time: Duration,
    ) {
        // Where whoever reads is what is slow, it says nothing of the device.
        if 2 * elsewhere > time || count == 0 {
            return;
        }
        if self.pinned.is_none() {
            self.steps.took(count, time);
        }
        let step = self.steps.step().map(|ms| Duration::from_secs_f64(ms * count as f64 / 1e3));
        session.steps_took(count, submissions, step.unwrap_or(time).min(time));
    }

    /// Why the device has found no token to choose after those given out: what the host says of the same logits.
    pub(super) async fn why_none(&self, session: &mut Session) -> Error {
        let logits = match session.logits().await {
            Ok(logits) => logits,
            Err(error) => return error,
        };
        let banned = self.sampler.banned_bits(logits.len());
        let may = |(id, logit): (u32, &f32)| {
            logit.is_finite() && !bit(&banned, id) && !self.alone.bans(id)
        };
        match (0..).zip(&logits).any(may) {
            true => Error::Kernel {
                kernel: "sample",
                detail: "it found no token to choose, though there are some: a defect of the driver or of this engine; \
                         try another adapter"
                    .into(),
            },
            false => Error::NotNumbers(
                "the model gives no token that may be chosen a logit above -inf".into(),
            ),
        }
    }
}
