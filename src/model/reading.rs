//! What a file says of its model.
use super::config::{
    Caps, Experts, HeadNorms, LayerKind, MOST, Mixer, Norms, Positions, Softmax, need_tensor,
};
use super::family::{Family, LocalRope, MixerRule, Parallel, PositionRule, Unturned, WindowRule};
use super::states::Mixers;
use super::{Config, Rope, RopeScaling, Scales, tensors};
use crate::format::{Array, Gguf, Value, shown};
use crate::ops::NormKind;
use crate::{Error, Result};

impl Config {
    /// An error that names the architecture of a file, unless it is one that runs.
    pub fn expect_family(gguf: &Gguf) -> Result<()> {
        Family::of(gguf).map(|_| ())
    }

    /// Reads and checks a config; what this engine does not do is refused by name.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let family = Family::of(gguf)?;
        let key = |name: &str| format!("{}.{name}", family.name);
        refuse_variants(gguf, family, &key)?;
        let size = |name: &str| -> Result<usize> {
            let key = key(name);
            match gguf.need_u32(&key)? {
                n @ 1..=MOST => Ok(n as usize),
                n => Err(Error::Unsupported(format!("{key} is {n}; 1 to {MOST} would do"))),
            }
        };
        let blocks = size("block_count")?;
        let ignored_layers = gguf.u32(&key("nextn_predict_layers"))?.unwrap_or(0) as usize;
        let n_layer = match blocks.checked_sub(ignored_layers) {
            Some(n_layer) if n_layer > 0 => n_layer,
            _ => {
                let key = key("nextn_predict_layers");
                let text = format!("{key} is {ignored_layers}, of {blocks} layers");
                return Err(Error::Unsupported(text));
            }
        };
        if n_layer > gguf.tensors.len() {
            let found = gguf.tensors.len();
            return Err(Error::Unsupported(format!(
                "{n_layer} layers in a file of {found} tensors"
            )));
        }
        // A size may be given layer by layer.
        let each = |name: &str| match gguf.get(&key(name)) {
            Some(Value::Array(sizes)) => in_layers(gguf, &key(name), sizes, n_layer, 1),
            _ => Ok(vec![size(name)?; n_layer]),
        };
        let of_layers = |name: &str| same_in_layers(&key(name), &each(name)?);
        let optional = |name: &str, default: usize| match gguf.get(&key(name)) {
            Some(_) => of_layers(name),
            None => Ok(default),
        };
        let (n_embd, n_head) = (size("embedding_length")?, of_layers("attention.head_count")?);
        let head_dim = optional("attention.key_length", n_embd / n_head)?;
        let local_dim = optional("attention.key_length_swa", head_dim)?;
        for (keys, values) in [(head_dim, "value_length"), (local_dim, "value_length_swa")] {
            let values = optional(&format!("attention.{values}"), keys)?;
            if values != keys {
                let text = format!("keys have {keys} dimensions and values {values}");
                return Err(Error::Unsupported(text));
            }
        }
        // Elsewhere the scale of attention would differ, too.
        if local_dim != head_dim && !family.unscaled {
            return Err(Error::Unsupported(format!(
                "heads of {head_dim} dimensions, and of {local_dim} where layers have a window ({}), \
                 which does not run for {}",
                key("attention.key_length_swa"),
                family.name
            )));
        }
        let embedding = need_tensor(gguf, "token_embd.weight")?;
        let positive = |name: &str| match gguf.f32(&key(name))? {
            None | Some(0.0) => Ok(None),
            Some(value) if value.is_finite() && value > 0.0 => Ok(Some(value)),
            Some(value) => Err(Error::Unsupported(format!("{} is {value}", key(name)))),
        };
        let rope = Rope {
            base: gguf.f32(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            dim: optional("rope.dimension_count", head_dim)?,
            layout: family.layout,
            scaling: RopeScaling::read(gguf, family, &key)?,
        };
        let positions = match family.positions {
            PositionRule::Rope => Positions::Rope,
            PositionRule::Learned => Positions::Learned,
            PositionRule::Alibi(fixed) => match positive("attention.max_alibi_bias")?.or(fixed) {
                Some(bias) => Positions::Alibi(bias),
                None => {
                    return Err(Error::Unsupported(format!(
                        "the model has neither ALiBi nor another kind of positions that {} may have",
                        family.name
                    )));
                }
            },
        };
        let eps = match family.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let found = |name: &str| gguf.tensor(&format!("blk.0.{name}.weight")).is_some();
        let mixers = Mixers::read(gguf, family, &key, n_layer)?;
        let kv_heads = match (mixers.kv_heads.clone(), gguf.get(&key("attention.head_count_kv"))) {
            (Some(heads), _) => heads,
            (None, Some(_)) => each("attention.head_count_kv")?,
            (None, None) => vec![n_head; n_layer],
        };
        let mut layers = layer_kinds(gguf, family, &key, &kv_heads, [head_dim, local_dim])?;
        mixers.set(&mut layers);
        // So Granite says that no layer turns anything.
        let unturned = family.scales && gguf.bool(&key("rope.scaling.finetuned"))? == Some(false);
        if unturned || positions != Positions::Rope {
            layers.iter_mut().for_each(|kind| kind.turns = false);
        }
        let experts = Experts::read(gguf, &key)?;
        let of_experts = "expert_feed_forward_length";
        let expert_size = experts.is_some() && gguf.get(&key(of_experts)).is_some();
        let windows = layers.iter().any(|kind| kind.window.is_some());
        let unscaled = Rope { scaling: RopeScaling::None, ..rope };
        let config = Self {
            name: gguf.str("general.name")?.unwrap_or_default().to_owned(),
            n_layer,
            n_embd,
            n_head,
            n_ff: of_layers(if expert_size { of_experts } else { "feed_forward_length" })?,
            n_vocab: usize::try_from(embedding.rows()).unwrap_or(usize::MAX),
            n_ctx: size("context_length")?,
            norms: Norms {
                kind: family.norm,
                eps: gguf.need_f32(&key(eps))?,
                places: family.places,
                // Some call the last norm so.
                embedding: gguf.tensor("token_embd_norm.weight").is_some()
                    && !family.names.contains(&("output_norm", "token_embd_norm")),
            },
            parallel: match family.parallel {
                Parallel::Never => false,
                Parallel::Always => true,
                Parallel::Key => gguf.bool(&key("use_parallel_residual"))?.unwrap_or(true),
                Parallel::OneNorm => !found("ffn_norm"),
            },
            head_norms: family
                .head_norms
                .filter(|norms| *norms != HeadNorms::OwnGains || found("attn_q_norm")),
            feed_forward: family.feed_forward,
            experts,
            positions,
            softmax: Softmax::read(gguf, family)?,
            caps: Caps {
                attention: positive("attn_logit_softcapping")?,
                logits: positive("final_logit_softcapping")?,
                qkv: positive("attention.clamp_kqv")?,
            },
            rope,
            local_rope: match family.local_rope {
                LocalRope::Same => None,
                LocalRope::Unscaled => windows.then_some(unscaled),
                LocalRope::Base => windows
                    .then(|| {
                        let base = gguf.f32(&key("rope.freq_base_swa"))?.unwrap_or(10_000.0);
                        let dim = optional("rope.dimension_count_swa", rope.dim)?;
                        Ok::<_, Error>(Rope { base, dim, ..unscaled })
                    })
                    .transpose()?,
            },
            layers,
            conv_taps: mixers.conv_taps,
            delta_net: mixers.delta_net,
            gated_heads: family.mixers == MixerRule::DeltaNet,
            scales: Scales::read(gguf, family, &key, [n_layer, n_embd, n_head, head_dim])?,
            most_capacity: match positive("attention.temperature_scale")? {
                Some(_) => Some(size("rope.scaling.original_context_length")?),
                None => None,
            },
            tied: gguf.tensor("output.weight").is_none(),
            ignored_layers,
            architecture: family.name.to_owned(),
        };
        config.check()?;
        tensors::check(&config, gguf)?;
        Ok(config)
    }
}

/// A size, of so much at least, that a file gives for each of its layers.
pub(super) fn in_layers(
    gguf: &Gguf,
    key: &str,
    sizes: &Array,
    n_layer: usize,
    least: i32,
) -> Result<Vec<usize>> {
    let sizes = sizes.i32s().unwrap_or_default();
    if sizes.len() != n_layer {
        let count = sizes.len();
        return Err(gguf.fault(0, format!("the key {key} has {count} sizes for {n_layer} layers")));
    }
    let size = |&size: &i32| match size {
        _ if (least..=MOST as i32).contains(&size) => Ok(size as usize),
        _ => Err(Error::Unsupported(format!("{key} is {size}; {least} to {MOST} would do"))),
    };
    sizes.iter().map(size).collect()
}

/// A size of layers: one that holds for all of them.
fn same_in_layers(key: &str, sizes: &[usize]) -> Result<usize> {
    let size = sizes[0];
    match sizes.iter().position(|&other| other != size) {
        None => Ok(size),
        Some(layer) => Err(Error::Unsupported(format!(
            "{key} is {size} in layer 0 and {} in layer {layer}; layers of different sizes do not run",
            sizes[layer]
        ))),
    }
}

/// The kind of every layer, of which each has so many key heads, of one size or, with a window of its own, of another.
fn layer_kinds(
    gguf: &Gguf,
    family: &Family,
    key: &impl Fn(&str) -> String,
    kv_heads: &[usize],
    [head_dim, local_dim]: [usize; 2],
) -> Result<Vec<LayerKind>> {
    let n_layer = kv_heads.len();
    // A window that no stream comes to is how some files say that there is none.
    let own =
        gguf.u32(&key("attention.sliding_window"))?.filter(|window| (1..MOST).contains(window));
    let own = own.or(family.window_of.filter(|(layers, _)| *layers == n_layer).map(|of| of.1));
    let pattern = key("attention.sliding_window_pattern");
    let listed = match gguf.get(&pattern) {
        Some(Value::Array(Array::Bool(layers))) if layers.len() == n_layer => Some(layers.clone()),
        Some(Value::Array(_)) => {
            return Err(gguf.fault(0, format!("the key {pattern} is no list of {n_layer} truths")));
        }
        _ => None,
    };
    let every = match (&listed, family.window) {
        (None, WindowRule::AllBut(every)) => {
            gguf.u32(&pattern)?.map_or(every, |n| n as usize).max(1)
        }
        _ => 1,
    };
    let local = |layer: usize| match family.window {
        WindowRule::Refused => false,
        WindowRule::All => true,
        WindowRule::AllBut(_) => match &listed {
            Some(layers) => layers[layer],
            None => layer % every + 1 < every,
        },
    };
    let windows = own.is_some() && (0..n_layer).any(local);
    if own.is_none() && local_dim != head_dim {
        let [heads, window] = ["key_length_swa", "sliding_window"];
        return Err(Error::Unsupported(format!(
            "{} gives heads of their own to layers with a window, which {} does not give them",
            key(&format!("attention.{heads}")),
            key(&format!("attention.{window}"))
        )));
    }
    let kinds = kv_heads.iter().enumerate().map(|(layer, &n_head_kv)| {
        let window = own.filter(|_| local(layer)).map(|window| window as usize);
        LayerKind {
            mixer: Mixer::Attention,
            window,
            n_head_kv,
            head_dim: if window.is_some() { local_dim } else { head_dim },
            turns: match family.unturned {
                Unturned::None => true,
                Unturned::Every(every) => !(layer + 1).is_multiple_of(every),
                Unturned::Global => !windows || window.is_some(),
            },
        }
    });
    Ok(kinds.collect())
}

impl Softmax {
    /// What a file says.
    fn read(gguf: &Gguf, family: &Family) -> Result<Self> {
        match gguf.str("brooklet.attention.softmax")? {
            None if family.learned_sinks => Ok(Self::Learned),
            None | Some("plain") => Ok(Self::Plain),
            Some("off-by-one") => Ok(Self::OffByOne),
            Some(other) => Err(Error::Unsupported(format!(
                "brooklet.attention.softmax is {}; plain and off-by-one work",
                shown(other, 80)
            ))),
        }
    }
}

impl Experts {
    /// What a file says, in a family that may have them.
    fn read(gguf: &Gguf, key: &impl Fn(&str) -> String) -> Result<Option<Self>> {
        let count = |name: &str| Ok::<_, Error>(gguf.u32(&key(name))?.unwrap_or(0));
        let experts = count("expert_count")?;
        if experts == 0 {
            return Ok(None);
        }
        let wrong = |name: &str, what: &str| {
            let key = key(name);
            Err(Error::Unsupported(format!("the model has {what} ({key}), which do not run")))
        };
        for (name, most, what) in [
            ("expert_shared_count", 0, "experts that all tokens share"),
            ("expert_shared_feed_forward_length", 0, "experts that all tokens share"),
            ("expert_group_count", 1, "groups of experts"),
            ("expert_group_used_count", 1, "groups of experts"),
            ("leading_dense_block_count", 0, "layers without experts"),
            ("interleave_moe_layer_step", 1, "layers without experts"),
            ("moe_every_n_layers", 1, "layers without experts"),
        ] {
            if count(name)? > most {
                return wrong(name, what);
            }
        }
        // By softmax, over all experts or over those of a token: what is left of either is the same.
        if !matches!(count("expert_gating_func")?, 0 | 1 | 3) {
            return wrong("expert_gating_func", "experts that are not weighed by softmax");
        }
        if gguf.bool(&key("expert_weights_norm"))? == Some(false) {
            return wrong("expert_weights_norm", "experts whose weights do not add up to one");
        }
        let used = match gguf.need_u32(&key("expert_used_count"))? {
            0 => return wrong("expert_used_count", "no experts for a token"),
            used => used as usize,
        };
        let scale = match gguf.f32(&key("expert_weights_scale"))? {
            None | Some(0.0) => 1.0,
            Some(scale) if scale.is_finite() => scale,
            Some(_) => return wrong("expert_weights_scale", "experts of no weight"),
        };
        Ok(Some(Self { count: experts as usize, used, scale }))
    }
}

/// Variants of the architecture whose result would be wrong.
fn refuse_variants(gguf: &Gguf, family: &Family, key: &impl Fn(&str) -> String) -> Result<()> {
    let no_windows = matches!(family.window, WindowRule::Refused);
    let no_alibi = !matches!(family.positions, PositionRule::Alibi(_));
    let variants = [
        (!family.scales, "logit_scale", "scaled logits"),
        (!family.scales, "embedding_scale", "a scaled embedding"),
        (!family.scales, "residual_scale", "scaled residuals"),
        (!family.scales, "attention.scale", "a scale of attention of its own"),
        (!family.experts, "expert_count", "a mixture of experts"),
        (no_windows, "attention.sliding_window", "attention trained with a sliding window"),
        (no_alibi, "attention.max_alibi_bias", "ALiBi"),
        (true, "embedding_length_per_layer_input", "embeddings of every layer"),
        (true, "attention.shared_kv_layers", "layers that share keys and values"),
    ];
    if gguf.bool(&key("attention.causal"))? == Some(false) {
        let key = key("attention.causal");
        return Err(Error::Unsupported(format!(
            "tokens of the model see what follows them ({key})"
        )));
    }
    for (_, name, what) in variants.into_iter().filter(|(refused, ..)| *refused) {
        if gguf.get(&key(name)).and_then(Value::number).is_some_and(|n| n != 0.0) {
            let key = key(name);
            return Err(Error::Unsupported(format!("the model has {what} ({key})")));
        }
    }
    Ok(())
}
