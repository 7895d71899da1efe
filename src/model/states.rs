//! Layers that do not attend: what a file says of them, and what they keep of a stream.
//!
//! A state is kept as a ring of positions, as keys and values are: so tokens that are taken back, saved streams and
//! positions beyond any number are the same for all layers.
use super::config::{LayerKind, Mixer};
use super::family::{Family, MixerRule};
use super::{CacheSettings, Config};
use crate::format::{Gguf, Value};
use crate::ops::RingParams;
use crate::{Error, Result};

/// The most tokens that a convolution may see.
const MOST_TAPS: u32 = 64;

/// What a file says of its layers' mixers.
pub(super) struct Mixers {
    /// Of each layer that is not attention.
    list: Vec<Mixer>,
    /// KV of each layer, where some have none; those are given what others have.
    pub(super) kv_heads: Option<Vec<usize>>,
    pub(super) conv_taps: usize,
}

impl Mixers {
    pub(super) fn read(
        gguf: &Gguf,
        family: &Family,
        key: &impl Fn(&str) -> String,
        n_layer: usize,
    ) -> Result<Self> {
        match family.mixers {
            MixerRule::Attention => {
                Ok(Self { list: vec![Mixer::Attention; n_layer], kv_heads: None, conv_taps: 0 })
            }
            MixerRule::ShortConv => Self::short_conv(gguf, key, n_layer),
        }
    }

    /// A layer without heads of keys is a convolution.
    fn short_conv(gguf: &Gguf, key: &impl Fn(&str) -> String, n_layer: usize) -> Result<Self> {
        let counts = key("attention.head_count_kv");
        let heads = match gguf.get(&counts) {
            Some(Value::Array(heads)) => heads.i32s().unwrap_or_default(),
            _ => vec![gguf.need_u32(&counts)?.min(i32::MAX as u32) as i32; n_layer],
        };
        if heads.len() != n_layer {
            let detail = format!("the key {counts} has {} sizes for {n_layer} layers", heads.len());
            return Err(gguf.fault(0, detail));
        }
        let wrong = |text: String| Err(Error::Unsupported(text));
        let Some(&first) = heads.iter().find(|&&heads| heads != 0) else {
            return wrong(format!("{counts} is 0 in every layer: a model without attention"));
        };
        if let Some(below) = heads.iter().find(|&&heads| heads < 0) {
            return wrong(format!("{counts} is {below}; 0 and more work"));
        }
        let mixer = |&heads: &i32| if heads == 0 { Mixer::ShortConv } else { Mixer::Attention };
        let list = heads.iter().map(mixer).collect();
        let some = |&heads: &i32| if heads == 0 { first as usize } else { heads as usize };
        let kv_heads = heads.iter().map(some).collect();
        let conv_taps = taps(gguf, key("shortconv.l_cache"))?;
        Ok(Self { list, kv_heads: Some(kv_heads), conv_taps })
    }

    pub(super) fn set(&self, layers: &mut [LayerKind]) {
        for (kind, &mixer) in layers.iter_mut().zip(&self.list) {
            kind.mixer = mixer;
        }
    }
}

fn taps(gguf: &Gguf, key: String) -> Result<usize> {
    match gguf.need_u32(&key)? {
        taps @ 1..=MOST_TAPS => Ok(taps as usize),
        taps => Err(Error::Unsupported(format!("{key} is {taps}; 1 to {MOST_TAPS} work"))),
    }
}

impl Config {
    /// Whether a layer keeps a state instead of keys and values.
    fn has_states(&self) -> bool {
        self.layers.iter().any(|kind| !kind.attends())
    }

    /// What people are told of layers that do not attend.
    pub(super) fn states_text(&self) -> String {
        let Self { n_layer, layers, conv_taps, .. } = self;
        let convolutions = layers.iter().filter(|kind| kind.mixer == Mixer::ShortConv).count();
        match convolutions {
            0 => String::new(),
            some => {
                format!("; {some} of {n_layer} layers are convolutions over {conv_taps} tokens")
            }
        }
    }

    /// The ring of layers that do not attend, for passes of so many tokens: token n is in slot n mod N, sinks like others.
    /// It is as long as such a layer looks back, and a chunk: as many tokens can be taken back.
    pub(super) fn state_ring(&self, settings: &CacheSettings) -> Option<RingParams> {
        let window = self.conv_taps as u32;
        let slots = window + settings.chunk as u32;
        self.has_states().then_some(RingParams { sinks: 0, window, slots })
    }

    /// Elements of a token that enter such a layer's mixer, and that leave it.
    pub(super) fn mix_widths(&self) -> [usize; 2] {
        if self.has_states() { [3 * self.n_embd, self.n_embd] } else { [0; 2] }
    }

    /// Words of a token in the two tensors that such a layer keeps.
    pub(super) fn state_words(&self) -> [usize; 2] {
        [self.n_embd, 0]
    }

    /// Bytes that all of them keep.
    pub(super) fn state_bytes(&self, ring: RingParams) -> u64 {
        let layers = self.layers.iter().filter(|kind| !kind.attends()).count() as u64;
        let words: usize = self.state_words().iter().sum();
        4 * layers * u64::from(ring.slots) * words as u64
    }
}
