//! Layers that do not attend: what a file says of them, and what they keep of a stream.
//!
//! A state is kept as a ring of positions, as keys and values are: so tokens that are taken back, saved streams and
//! positions beyond any number are the same for all layers.
use super::config::{DeltaHeads, LayerKind, MOST, Mixer};
use super::family::{Family, MixerRule};
use super::reading::in_layers;
use super::{CacheSettings, Config};
use crate::format::{Array, Gguf, Value};
use crate::ops::{DeltaNetParams, MOST_KEY_DIM, RingParams};
use crate::{Error, Result};

/// The most tokens that a convolution may see.
const MOST_TAPS: u32 = 64;

/// Tokens from one state that is kept to the next: as many are gone through once more, where some were taken back.
const STEP: u32 = 32;

/// What a file says of its layers' mixers.
pub(super) struct Mixers {
    /// Of each layer that is not attention.
    list: Vec<Mixer>,
    /// KV of each layer, where some have none; those are given what others have.
    pub(super) kv_heads: Option<Vec<usize>>,
    pub(super) conv_taps: usize,
    pub(super) delta_net: Option<DeltaHeads>,
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
                let list = vec![Mixer::Attention; n_layer];
                Ok(Self { list, kv_heads: None, conv_taps: 0, delta_net: None })
            }
            MixerRule::ShortConv => Self::short_conv(gguf, key, n_layer),
            MixerRule::DeltaNet => Self::delta_net(gguf, key, n_layer),
        }
    }

    /// A layer without heads of keys is a convolution.
    fn short_conv(gguf: &Gguf, key: &impl Fn(&str) -> String, n_layer: usize) -> Result<Self> {
        let counts = key("attention.head_count_kv");
        let heads = match gguf.get(&counts) {
            Some(Value::Array(heads)) => in_layers(gguf, &counts, heads, n_layer, 0)?,
            _ => vec![gguf.need_u32(&counts)? as usize; n_layer],
        };
        let Some(&first) = heads.iter().find(|&&heads| heads != 0) else {
            return Err(Error::Unsupported(format!(
                "{counts} is 0 in every layer: a model without attention"
            )));
        };
        let mixer = |&heads: &usize| if heads == 0 { Mixer::ShortConv } else { Mixer::Attention };
        let list = heads.iter().map(mixer).collect();
        let some = |&heads: &usize| if heads == 0 { first } else { heads };
        let kv_heads = heads.iter().map(some).collect();
        let conv_taps = taps(gguf, key("shortconv.l_cache"))?;
        Ok(Self { list, kv_heads: Some(kv_heads), conv_taps, delta_net: None })
    }

    /// The gated delta rule, but in the layers that attend.
    fn delta_net(gguf: &Gguf, key: &impl Fn(&str) -> String, n_layer: usize) -> Result<Self> {
        let wrong = |text: String| Err(Error::Unsupported(text));
        let (listed, every) = (key("attention.recurrent_layers"), key("full_attention_interval"));
        let recurrent: Vec<bool> = match gguf.get(&listed) {
            Some(Value::Array(Array::Bool(layers))) if layers.len() >= n_layer => {
                layers[..n_layer].to_vec()
            }
            Some(_) => {
                let detail = format!("the key {listed} is no list of {n_layer} truths");
                return Err(gguf.fault(0, detail));
            }
            None => match gguf.u32(&every)?.unwrap_or(4) as usize {
                0 => return wrong(format!("{every} is 0; 1 or more works")),
                every => (1..=n_layer).map(|layer| !layer.is_multiple_of(every)).collect(),
            },
        };
        if recurrent.iter().all(|&recurrent| recurrent) {
            return wrong(format!("no layer attends, as {listed} and {every} have it"));
        }
        let size = |name: &str| match gguf.need_u32(&key(name))? {
            size @ 1..=MOST => Ok(size as usize),
            size => Err(Error::Unsupported(format!("{} is {size}; 1 to {MOST} work", key(name)))),
        };
        let [key_heads, heads] = [size("ssm.group_count")?, size("ssm.time_step_rank")?];
        let [key_dim, inner] = [size("ssm.state_size")?, size("ssm.inner_size")?];
        if !heads.is_multiple_of(key_heads) || !inner.is_multiple_of(heads) {
            return wrong(format!(
                "{key_heads} heads of keys for {heads} of values, of {inner} dimensions in all, which do not share evenly"
            ));
        }
        if !key_dim.is_multiple_of(4) || key_dim > MOST_KEY_DIM || !inner.is_multiple_of(32) {
            return wrong(format!(
                "states of {key_dim} dimensions a key and {inner} of values in all; multiples of 4 up to {MOST_KEY_DIM} \
                 and of 32 work"
            ));
        }
        let wide = key_heads.saturating_mul(key_dim).saturating_add(inner);
        if wide > MOST as usize / 4 {
            return wrong(format!("{wide} dimensions of keys and values, wider than any model"));
        }
        let mixer = |&recurrent: &bool| if recurrent { Mixer::DeltaNet } else { Mixer::Attention };
        Ok(Self {
            list: recurrent.iter().map(mixer).collect(),
            kv_heads: None,
            conv_taps: taps(gguf, key("ssm.conv_kernel"))?,
            delta_net: Some(DeltaHeads { key_heads, heads, key_dim, value_dim: inner / heads }),
        })
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
        let Self { n_layer, layers, conv_taps, delta_net, .. } = self;
        let what = match delta_net {
            None => format!("are convolutions over {conv_taps} tokens"),
            Some(_) => "have a state, by the gated delta rule".to_owned(),
        };
        match layers.iter().filter(|kind| !kind.attends()).count() {
            0 => String::new(),
            some => format!("; {some} of {n_layer} layers {what}"),
        }
    }

    /// The ring of layers that do not attend, for passes of so many tokens: token n is in slot n mod N, sinks like others.
    /// It is as long as such a layer looks back, and a chunk: as many tokens can be taken back.
    pub(super) fn state_ring(&self, settings: &CacheSettings) -> Option<RingParams> {
        // From a state that is kept on, tokens are gone through once more.
        let step = if self.delta_net.is_some() { STEP } else { 1 };
        let window = self.conv_taps as u32 + step - 1;
        let slots = (window + settings.chunk as u32).next_multiple_of(step);
        self.has_states().then_some(RingParams { sinks: 0, window, slots })
    }

    /// What the gated delta rule is told, where layers have it.
    pub(super) fn delta_params(&self, ring: RingParams) -> Option<DeltaNetParams> {
        let of = self.delta_net?;
        let DeltaHeads { key_heads, heads, key_dim, value_dim } = of;
        let [key_heads, heads, key_dim, value_dim, width] =
            [key_heads, heads, key_dim, value_dim, of.row()].map(|n| n as u32);
        Some(DeltaNetParams {
            key_heads,
            heads,
            key_dim,
            value_dim,
            width,
            slots: ring.slots,
            step: STEP,
            first: 0,
            span: 0,
            eps: 1e-6,
        })
    }

    /// Elements of a token that enter the mixer of a layer that does not attend, and that leave it.
    pub(super) fn mix_widths(&self) -> [usize; 2] {
        match self.delta_net {
            Some(of) => {
                let values = of.heads * of.value_dim;
                [of.row() + values, values]
            }
            None if self.has_states() => [3 * self.n_embd, self.n_embd],
            None => [0; 2],
        }
    }

    /// Gates of attention.
    pub(super) fn gate_width(&self) -> usize {
        let widest = self.layers.iter().map(|kind| kind.head_dim).max().unwrap_or(0);
        if self.gated_heads { self.n_head * widest } else { 0 }
    }

    /// Words of a token in the two tensors that such a layer keeps: what enters its convolution, and what comes of it.
    pub(super) fn state_words(&self) -> [usize; 2] {
        match self.delta_net {
            Some(of) => [of.channels(), of.row()],
            None => [self.n_embd, 0],
        }
    }

    /// States that a layer keeps, and the words of one.
    pub(super) fn states_shape(&self, kind: LayerKind, ring: RingParams) -> Option<[usize; 2]> {
        let params = self.delta_params(ring).filter(|_| kind.mixer == Mixer::DeltaNet);
        params.map(|params| params.states())
    }

    /// A smaller chunk, where layers keep as much as a pass takes back.
    pub(super) fn chunk_to_try(&self, settings: &CacheSettings) -> Option<(&'static str, String)> {
        let less = settings.chunk / 2;
        (self.has_states() && less > 0).then(|| ("chunk", less.to_string()))
    }

    /// Bytes that all layers keep that do not attend.
    pub(super) fn state_bytes(&self, ring: RingParams) -> u64 {
        let of_layer = |&kind: &LayerKind| {
            let rows = self.state_words().iter().sum::<usize>() as u64 * u64::from(ring.slots);
            let states = self.states_shape(kind, ring).unwrap_or_default();
            4 * (rows + states.iter().map(|&n| n as u64).product::<u64>())
        };
        self.layers.iter().filter(|kind| !kind.attends()).map(of_layer).sum()
    }
}
