//! What streams draw their tokens by, on the device.
use super::FRAME_ROW;
use crate::gpu::{Gpu, Tensor};
use crate::text::{Sampler, SamplerSettings};
use crate::{Error, Result};

/// Words of a stream's state before the recent ids.
const STATE: usize = 4;
/// Tokens of a slice: `SLICE` of `shaders/sample_select.wgsl`.
pub(super) const SLICE: usize = 1024;
/// Ids that can be recent, at least, in a stream that has its place among others.
const RECENT_AMONG_OTHERS: usize = 4096;
/// Rows whose candidates are there at once, where there are more.
pub(super) const ROWS_AT_ONCE: usize = 16;

/// Below it the likeliest tokens alone are drawn as it is: what is close to 0 may be 0 to a device, which would divide by
/// it.
const LEAST_TEMPERATURE: f32 = 1e-30;

/// `Sampling` of `shaders/lib/sampling.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SamplingParams {
    /// [`SamplerSettings::temperature`]
    pub temperature: f32,
    /// [`SamplerSettings::top_k`]
    pub top_k: u32,
    /// [`SamplerSettings::top_p`]
    pub top_p: f32,
    /// [`SamplerSettings::min_p`]
    pub min_p: f32,
    /// [`SamplerSettings::repeat_penalty`]
    pub repeat: f32,
    /// [`SamplerSettings::presence_penalty`]
    pub presence: f32,
    /// [`SamplerSettings::frequency_penalty`]
    pub frequency: f32,
    /// Ids that count as recent: 0 without penalties.
    pub recent: u32,
    /// [`SamplerSettings::seed`], low word first.
    pub seed: [u32; 2],
    /// Candidates of a slice.
    pub each: u32,
    /// 1 where something is added to logits.
    pub biased: u32,
}

/// Ids that count as recent by these settings.
fn recent(by: &SamplerSettings) -> usize {
    if by.penalises() { by.penalty_last_n as usize } else { 0 }
}

/// Candidates of a slice: the likeliest of all is among the likeliest of the slices.
fn each(by: &SamplerSettings, vocab: usize) -> usize {
    let top_k = if by.temperature == 0.0 { 1 } else { by.top_k as usize };
    let slice = SLICE.min(vocab);
    if top_k == 0 { slice } else { slice.min(top_k) }
}

/// Settings, bans, biases and recent ids of one stream or of several, and room for candidates.
pub struct SamplerState {
    pub(super) vocab: usize,
    pub(super) sampling: Tensor, // [S, FRAME_ROW]
    /// One bit a token that is not to be chosen.
    pub banned: Tensor, // [S, ceil(V/32)]
    pub(super) bias: Tensor,     // [S, V], or [1, 1] where nothing is added
    pub(super) counts: Tensor,   // [S, V], or [1, 1] without penalties
    pub(crate) state: Tensor,    // [S, STATE + recent]
    pub(super) candidates: Tensor, // [R, slices * EACH, 2]
    /// Whether top-k may leave some of a slice, and not others.
    pub(super) searches: bool,
}

impl SamplerState {
    /// Of one stream over `vocab` tokens, for these settings.
    pub fn new(gpu: &Gpu, by: &SamplerSettings, vocab: usize) -> Result<Self> {
        let row = |has: bool| if has { vocab } else { 1 };
        let (each, state) = (each(by, vocab), STATE + recent(by));
        let (banned, candidates) = (vocab.div_ceil(32), vocab.div_ceil(SLICE) * each);
        let wide = [banned, row(by.biases()), row(by.penalises()), state, candidates];
        let alone = Self::with(gpu, vocab, [1, 1], wide)?;
        Ok(Self { searches: (2..SLICE.min(vocab)).contains(&each), ..alone })
    }

    /// Of so many streams over `vocab` tokens, whatever their settings: a row of each tensor a stream, which begins where a
    /// binding may.
    pub fn of_streams(gpu: &Gpu, vocab: usize, streams: usize) -> Result<Self> {
        let row = |words: usize| words.next_multiple_of(FRAME_ROW);
        let (banned, state) = (row(vocab.div_ceil(32)), row(STATE + RECENT_AMONG_OTHERS));
        let rows = [streams, streams.min(ROWS_AT_ONCE)];
        let candidates = vocab.div_ceil(SLICE) * SLICE;
        Self::with(gpu, vocab, rows, [banned, row(vocab), row(vocab), state, candidates])
    }

    fn with(
        gpu: &Gpu,
        vocab: usize,
        [streams, rows]: [usize; 2],
        [banned, biases, counts, state, candidates]: [usize; 5],
    ) -> Result<Self> {
        let make = |label: &str, row: usize| {
            Tensor::zeros(gpu, format!("sampler.{label}"), &[streams, row])
        };
        Ok(Self {
            vocab,
            sampling: make("sampling", FRAME_ROW)?,
            banned: make("banned", banned)?,
            bias: make("bias", biases)?,
            counts: make("counts", counts)?,
            state: make("state", state)?,
            candidates: Tensor::zeros(gpu, "sampler.candidates", &[rows, candidates, 2])?,
            searches: true,
        })
    }

    /// That of one of several, in the same memory. Candidates are there for one of them at a time.
    pub fn stream(&self, stream: usize) -> Self {
        let view = |t: &Tensor| t.view(&t.label, stream, &[1, t.shape[1]]);
        let candidates = &self.candidates;
        Self {
            sampling: view(&self.sampling),
            banned: view(&self.banned),
            bias: view(&self.bias),
            counts: view(&self.counts),
            state: view(&self.state),
            candidates: candidates.view(&candidates.label, 0, &[1, candidates.shape[1], 2]),
            ..*self
        }
    }

    /// An error where a stream by these settings finds no room here.
    pub fn expect(&self, by: &SamplerSettings) -> Result<()> {
        let room = self.state.shape[1] - STATE;
        match recent(by) <= room {
            true => Ok(()),
            false => Err(Error::Setting {
                which: "penalty_last_n",
                found: by.penalty_last_n.to_string(),
                works: format!("at most {room} works among streams that share their passes"),
            }),
        }
    }

    /// Tells the device all that the next draw of a stream depends on.
    pub fn tell(&self, gpu: &Gpu, sampler: &Sampler) {
        let ((by, _), biases) = (sampler.settings(), sampler.biases(self.vocab));
        let params = SamplingParams {
            temperature: match by.temperature {
                0.0 => 0.0,
                some => some.max(LEAST_TEMPERATURE),
            },
            top_k: by.top_k,
            top_p: by.top_p,
            min_p: by.min_p,
            repeat: by.repeat_penalty,
            presence: by.presence_penalty,
            frequency: by.frequency_penalty,
            recent: recent(by) as u32,
            seed: [by.seed as u32, (by.seed >> 32) as u32],
            each: each(by, self.vocab) as u32,
            biased: u32::from(biases.is_some()),
        };
        self.sampling.write(gpu, 0, &[params]);
        self.banned.write(gpu, 0, &sampler.banned_bits(self.vocab));
        if let Some(biases) = biases {
            self.bias.write(gpu, 0, &biases);
        }
        self.tell_draws(gpu, sampler, &[]);
    }

    /// Tells the device of draws so far and of the ids that count as recent, as they are after `ahead` have been drawn as
    /// well.
    pub fn tell_draws(&self, gpu: &Gpu, sampler: &Sampler, ahead: &[u32]) {
        let (recent, draws) = sampler.after(ahead);
        let mut words = vec![draws as u32, (draws >> 32) as u32, 0, recent.len() as u32];
        words.extend(recent);
        self.state.write(gpu, 0, &words);
        if sampler.penalises() {
            let mut counts = vec![0u32; self.vocab];
            words[STATE..].iter().for_each(|&id| counts[id as usize] += 1);
            self.counts.write(gpu, 0, &counts);
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        let Self { sampling, banned, bias, counts, state, candidates, .. } = self;
        [sampling, banned, bias, counts, state, candidates].iter().map(|t| t.size()).sum()
    }
}
