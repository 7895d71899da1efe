//! Logits to an id: penalties, then top-k, top-p, min-p, temperature, in llama.cpp's order. What the device's own
//! sampler (`shaders/sample_select.wgsl`, `shaders/sample.wgsl`) is held to: each filter is a function of the same name
//! there.
use super::random::random;
use crate::format::Gguf;
use crate::{Error, Result};
use std::collections::VecDeque;

/// How a token is chosen. The defaults are llama.cpp's.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerSettings {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keep this many of the likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep those at least this share as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides the positive logits of recent tokens and multiplies the negative; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logits of recent tokens.
    pub presence_penalty: f32,
    /// Subtracted once for each time a token is among the recent ones.
    pub frequency_penalty: f32,
    /// How many tokens are recent.
    pub penalty_last_n: u32,
    /// The same seed draws the same.
    pub seed: u64,
    /// What is added to the logits of some ids before anything else; -100 or less bans them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bias: Vec<(u32, f32)>,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_last_n: 64,
            seed: 0,
            bias: Vec::new(),
        }
    }
}

/// The one rule for what a model computes: an error that names the first logit which is infinite or not a number. The
/// least of all, -inf, may be there: it is never chosen.
pub fn expect_numbers(logits: &[f32]) -> Result<()> {
    let broken = |(_, logit): &(usize, &f32)| logit.is_nan() || **logit == f32::INFINITY;
    match logits.iter().enumerate().find(broken) {
        None => Ok(()),
        Some((id, logit)) => {
            Err(Error::NotNumbers(format!("the model gives token {id} a logit of {logit}")))
        }
    }
}

impl SamplerSettings {
    /// These settings, with what a model's file says of how its tokens are best chosen (`general.sampling.*`) in the
    /// place of theirs. An error names a key whose value is of another type than llama.cpp writes.
    pub fn suggested_by(self, gguf: &Gguf) -> Result<Self> {
        let f32 = |key: &str| gguf.f32(&format!("general.sampling.{key}"));
        let suggested = Self {
            temperature: f32("temp")?.unwrap_or(self.temperature),
            top_k: gguf.u32("general.sampling.top_k")?.unwrap_or(self.top_k),
            top_p: f32("top_p")?.unwrap_or(self.top_p),
            min_p: f32("min_p")?.unwrap_or(self.min_p),
            repeat_penalty: f32("penalty_repeat")?.unwrap_or(self.repeat_penalty),
            ..self
        };
        Ok(suggested)
    }

    /// The most tokens that can be recent. They are kept one by one: a bound on the memory of the penalties.
    pub const MOST_RECENT: u32 = 1 << 20;

    /// The most ids that can have a bias.
    pub const MOST_BIASED: usize = 1024;
    /// An id that has this bias or less is never chosen.
    pub const BANS: f32 = -100.0;

    /// An error that names the first setting which cannot work.
    pub fn check(&self) -> Result<()> {
        let wrong = |which, found: String, works| Err(Error::Setting { which, found, works });
        let within = |which, value: f32, low: f32, high: f32| match value {
            value if value >= low && value <= high => Ok(()),
            value => wrong(which, value.to_string(), format!("{low} to {high} works")),
        };
        within("temperature", self.temperature, 0.0, 1e6)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repeat_penalty", self.repeat_penalty, 1e-3, 1e3)?;
        within("presence_penalty", self.presence_penalty, -1e6, 1e6)?;
        within("frequency_penalty", self.frequency_penalty, -1e6, 1e6)?;
        if self.bias.len() > Self::MOST_BIASED {
            let works = format!("at most {} ids work", Self::MOST_BIASED);
            return wrong("logit_bias", format!("of {} ids", self.bias.len()), works);
        }
        if let Some((id, value)) = self.bias.iter().find(|(_, v)| v.is_nan() || *v > 1e6) {
            let works = "up to 1000000 works, and -100 or less bans the token".to_owned();
            return wrong("logit_bias", format!("{value} of token {id}"), works);
        }
        match self.penalty_last_n {
            0..=Self::MOST_RECENT => Ok(()),
            n => wrong(
                "penalty_last_n",
                n.to_string(),
                format!("at most {} works", Self::MOST_RECENT),
            ),
        }
    }

    /// Whether recent tokens matter.
    pub fn penalises(&self) -> bool {
        let off = self.repeat_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0;
        !off && self.penalty_last_n > 0
    }

    /// Whether something is added to the logits of tokens that may be chosen.
    pub fn biases(&self) -> bool {
        self.bias.iter().any(|(_, value)| *value > Self::BANS)
    }

    /// The likeliest token and nothing else counts.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && !self.penalises() && !self.biases()
    }
}

/// An id and its logit.
type Candidate = (u32, f32);

/// The logit of an id that is among the recent `count` times.
fn penalties(s: &SamplerSettings, logit: f32, count: u32) -> f32 {
    let repeated = if logit > 0.0 { logit / s.repeat_penalty } else { logit * s.repeat_penalty };
    repeated - (count as f32 * s.frequency_penalty + s.presence_penalty)
}

/// Keeps the `k` likeliest, of equal ones those with the lowest ids; all with 0. The likeliest comes first then.
fn top_k(kept: &mut Vec<Candidate>, k: usize) {
    // To which 0 is added: -0 and 0 are one.
    let likelier =
        |a: &Candidate, b: &Candidate| (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then(a.0.cmp(&b.0));
    if k > 0 && k < kept.len() {
        kept.select_nth_unstable_by(k - 1, likelier);
        kept.truncate(k);
    }
    kept.sort_unstable_by(likelier);
}

/// How likely a candidate is beside the first, the likeliest.
fn beside(kept: &[Candidate], candidate: usize) -> f64 {
    (f64::from(kept[candidate].1) - f64::from(kept[0].1)).exp()
}

/// Keeps the likeliest that together have the share `p` of what was kept.
fn top_p(kept: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let total: f64 = (0..kept.len()).map(|i| beside(kept, i)).sum();
    let (mut sum, mut keep) = (0.0, 0);
    while keep < kept.len() {
        sum += beside(kept, keep);
        keep += 1;
        if sum >= f64::from(p) * total {
            break;
        }
    }
    kept.truncate(keep);
}

/// Keeps those at least the share `p` as likely as the likeliest.
fn min_p(kept: &mut Vec<Candidate>, p: f32) {
    let keep = (1..kept.len()).take_while(|&i| beside(kept, i) >= f64::from(p)).count();
    kept.truncate(1 + keep);
}

/// Draws tokens. Nothing is allocated for a token once warm.
pub struct Sampler {
    settings: SamplerSettings,
    /// Draws so far: the next one's counter.
    draws: u64,
    banned: Vec<u32>,
    recent: VecDeque<u32>,
    /// How often each id is among the recent.
    counts: Vec<u32>,
    /// Ids and logits of what may be drawn.
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
}

impl Sampler {
    /// For a vocabulary of `n_vocab` tokens, of which `banned` are never drawn.
    pub fn new(settings: SamplerSettings, n_vocab: usize, banned: &[u32]) -> Result<Self> {
        settings.check()?;
        if let Some((id, _)) = settings.bias.iter().find(|(id, _)| *id as usize >= n_vocab) {
            return Err(Error::Setting {
                which: "logit_bias",
                found: format!("of token {id}"),
                works: format!("ids below {n_vocab} work, which is the size of the vocabulary"),
            });
        }
        let mut left = vec![true; n_vocab];
        let bans = settings.bias.iter().filter(|(_, v)| *v <= SamplerSettings::BANS);
        for &id in bans.map(|(id, _)| id).chain(banned) {
            if let Some(left) = left.get_mut(id as usize) {
                *left = false;
            }
        }
        if !left.contains(&true) {
            return Err(Error::Usage("every token is banned; there is nothing to draw".into()));
        }
        let counts = if settings.penalises() { vec![0; n_vocab] } else { Vec::new() };
        let (banned, recent) = (banned.to_vec(), VecDeque::new());
        let (candidates, weights) = (Vec::new(), Vec::new());
        Ok(Self { settings, draws: 0, banned, recent, counts, candidates, weights })
    }

    /// Notes a token of the stream, for the penalties.
    pub fn accept(&mut self, id: u32) {
        if !self.settings.penalises() || id as usize >= self.counts.len() {
            return;
        }
        if self.recent.len() == self.settings.penalty_last_n as usize
            && let Some(old) = self.recent.pop_front()
        {
            self.counts[old as usize] -= 1;
        }
        self.recent.push_back(id);
        self.counts[id as usize] += 1;
    }

    /// Draws a token. The logits `[V]` are changed by bans and penalties.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        expect_numbers(logits)?;
        self.adjust(logits);
        self.candidates.clear();
        let usable = |&(_, logit): &Candidate| logit > f32::NEG_INFINITY;
        let pairs = (0u32..).zip(logits.iter().copied());
        self.candidates.extend(pairs.filter(usable));
        let likeliest =
            self.candidates.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        let Some((likeliest, _)) = likeliest else {
            return Err(Error::NotNumbers(
                "the model gives no token that may be chosen a logit above -inf".into(),
            ));
        };
        let draw = self.draws;
        self.draws += 1;
        if self.settings.temperature == 0.0 {
            return Ok(likeliest);
        }
        let (s, kept) = (&self.settings, &mut self.candidates);
        top_k(kept, s.top_k as usize);
        top_p(kept, s.top_p);
        min_p(kept, s.min_p);
        Ok(self.draw(draw))
    }

    fn adjust(&mut self, logits: &mut [f32]) {
        for &id in &self.banned {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let s = &self.settings;
        for &(id, bias) in &s.bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit =
                    if bias <= SamplerSettings::BANS { f32::NEG_INFINITY } else { *logit + bias };
            }
        }
        for &id in &self.recent {
            // A token that is recent several times is penalised at its first place, where its count is.
            let count = std::mem::take(&mut self.counts[id as usize]);
            if let (1.., Some(logit)) = (count, logits.get_mut(id as usize)) {
                *logit = penalties(s, *logit, count);
            }
        }
        self.recent.iter().for_each(|&id| self.counts[id as usize] += 1);
    }

    /// Walks the candidates in the order of their ids.
    fn draw(&mut self, draw: u64) -> u32 {
        let highest = f64::from(self.candidates[0].1);
        self.candidates.sort_unstable_by_key(|&(id, _)| id);
        let temperature = f64::from(self.settings.temperature);
        let weight = |&(_, logit): &Candidate| ((f64::from(logit) - highest) / temperature).exp();
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(weight));
        let total: f64 = self.weights.iter().sum();
        let mut left = f64::from(random(self.settings.seed, draw)) / 2f64.powi(32) * total;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            if left < *weight {
                return candidate.0;
            }
            left -= weight;
        }
        self.candidates[0].0
    }

    /// Whether recent tokens matter.
    pub fn penalises(&self) -> bool {
        self.settings.penalises()
    }

    /// The ids that count as recent, oldest first, and the draws so far: what a draw depends on beside the settings.
    pub fn state(&self) -> (impl Iterator<Item = u32> + '_, u64) {
        (self.recent.iter().copied(), self.draws)
    }

    /// Goes on from a [`state`](Self::state) of the same settings.
    pub fn resume(&mut self, recent: &[u32], draws: u64) {
        recent.iter().for_each(|&id| self.accept(id));
        self.draws = draws;
    }

    /// How a token is chosen, and the ids that never are.
    pub fn settings(&self) -> (&SamplerSettings, &[u32]) {
        (&self.settings, &self.banned)
    }

    /// The ids that are never chosen as bits, 32 to a word, the lowest first. `[ceil(V/32)]`
    pub fn banned_bits(&self, vocab: usize) -> Vec<u32> {
        let mut bits = vec![0u32; vocab.div_ceil(32)];
        let bias = self.settings.bias.iter().filter(|(_, v)| *v <= SamplerSettings::BANS);
        let ids = self.banned.iter().chain(bias.map(|(id, _)| id));
        for &id in ids.filter(|&&id| (id as usize) < vocab) {
            bits[id as usize / 32] |= 1 << (id % 32);
        }
        bits
    }

    /// Whether an id is never chosen.
    pub fn bans(&self, id: u32) -> bool {
        let by_bias =
            |&(biased, value): &(u32, f32)| biased == id && value <= SamplerSettings::BANS;
        self.banned.contains(&id) || self.settings.bias.iter().any(by_bias)
    }

    /// The [`state`](Self::state) after these ids have been drawn as well.
    pub fn after(&self, ids: &[u32]) -> (Vec<u32>, u64) {
        let draws = self.draws + ids.len() as u64;
        if !self.penalises() {
            return (Vec::new(), draws);
        }
        let mut recent: Vec<u32> = self.recent.iter().chain(ids).copied().collect();
        recent.drain(..recent.len().saturating_sub(self.settings.penalty_last_n as usize));
        (recent, draws)
    }

    /// What is added to each logit, if anything is to any. `[V]`
    pub fn biases(&self, vocab: usize) -> Option<Vec<f32>> {
        if !self.settings.biases() {
            return None;
        }
        let added = self.settings.bias.iter().filter(|(_, v)| *v > SamplerSettings::BANS);
        let mut bias = vec![0.0; vocab];
        added.for_each(|&(id, value)| bias[id as usize] += value);
        Some(bias)
    }

    /// Notes a token that the device has drawn by the same settings.
    pub fn drawn(&mut self, id: u32) {
        self.draws += 1;
        self.accept(id);
    }
}
