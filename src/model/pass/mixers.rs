//! What mixes the tokens of a layer: attention over the cache, a gated convolution, the gated delta rule.
use super::Recorder;
use crate::Result;
use crate::gpu::Tensor;
use crate::model::config::{HeadNorms, LayerKind};
use crate::model::forward::HeadActivations;
use crate::model::weights::Layer;
use crate::model::{Activations, Cache, Config};
use crate::ops::{AttentionParams, GateParams, HeadNormParams};

impl<'a> Recorder<'a> {
    /// Attention of the layer's qkv, which comes into the cache, over what is there: att [T, H HD].
    pub(in crate::model) fn attend(&mut self, layer: &'a Layer) -> Result<&'a Tensor> {
        let Self { kernels, cache, act, .. } = *self;
        let HeadActivations { qkv, q, att, carry, parts } = self.heads();
        let (c, i, frame) = (self.config(), self.layer, &act.frame);
        let heads = c.heads_of(i);
        let (attention_one, attention) = &kernels.attention[heads];
        let (k, v, turns, terms) = (cache.k(i), cache.v(i), cache.turns(i), &layer.attn_terms);
        if let (Some(op), Some(cap)) = (&kernels.softcap, c.caps.qkv) {
            let label = self.label("clamp_kqv");
            op.record_clamp(&mut self.r, label, cap, qkv)?; // qkv [T, (H + 2 KV) HD]
        }
        if let (Some(op), Some(norms), Some(gain)) =
            (&kernels.head_norm, c.head_norms, &layer.head_norms)
        {
            let label = self.label("head_norm");
            op.record(&mut self.r, label, head_norms(c, i, norms), [frame, gain, qkv])?; // qkv [T, (H + 2 KV) HD]
        }
        let params = params(c, cache, i);
        if act.one() && self.look.is_none() {
            let tensors = [frame, qkv, turns, k, v, parts, att, terms];
            let label = self.label("attention");
            attention_one.record(&mut self.r, &label, params, tensors)?; // att [1, H HD]
            return Ok(att);
        }
        if let (Some(frames), None) = (&act.frames, self.look) {
            let tensors = [frames, qkv, turns, k, v, parts, att, terms];
            let label = self.label("attention");
            attention_one.record_rows(&mut self.r, &label, params, tensors)?; // att [R, H HD]
            return Ok(att);
        }
        let label = self.label("rope_store");
        kernels.rope_store.record(&mut self.r, label, params, [frame, qkv, turns, q, k, v])?; // q [T, 3, H HD]
        let label = self.label("attention");
        attention.record(&mut self.r, label, params, [frame, q, k, v, att, carry, terms])?; // att [T, H HD]
        if let Some((shares, seen)) = self.look {
            let label = self.label("shares");
            shares[heads].record(&mut self.r, label, params, i, [frame, q, k, v, seen, terms])?; // seen [L, T, H, FIRST]
        }
        Ok(att)
    }

    /// The gated convolution of `act.mix`, of which the layer's state keeps what comes next: mixed [T, D].
    pub(in crate::model) fn short_conv(&mut self, layer: &'a Layer) -> Result<&'a Tensor> {
        let Self { kernels, cache, act, .. } = *self;
        let (Some(op), Some(conv)) = (&kernels.short_conv, &layer.conv) else {
            return Ok(&act.mixed);
        };
        let tensors = [&act.frame, &act.mix, conv, cache.k(self.layer), &act.mixed];
        let (label, taps) = (self.label("short_conv"), self.config().conv_taps);
        op.record(&mut self.r, label, taps, tensors)?;
        Ok(&act.mixed)
    }

    /// Gates on what the heads of attention give.
    pub(in crate::model) fn gate(&mut self, att: &'a Tensor) -> Result<()> {
        let Self { kernels, act, .. } = *self;
        let Some(op) = &kernels.gate else { return Ok(()) };
        let (c, label) = (self.config(), self.label("gate"));
        let [heads, size] = [c.n_head, c.layers[self.layer].head_dim].map(|n| n as u32);
        let params = GateParams { heads, size, stride: heads * size, first: 0, eps: 0.0 };
        op.record(&mut self.r, label, params, [&act.frame, &act.gate, &act.gate, att])
    }

    /// The gated delta rule over `act.mix`: a convolution, states, a norm and gates; mixed [T, H DV].
    pub(in crate::model) fn delta_net(&mut self, layer: &'a Layer) -> Result<&'a Tensor> {
        let Self { kernels, cache, act, layer: i, .. } = *self;
        let Activations { frame, mix, mixed, .. } = act;
        let c = self.config();
        let (Some(conv), Some((delta_net, gate))) = (&kernels.short_conv, &kernels.delta_net)
        else {
            return Ok(mixed);
        };
        let (Some(params), Some(states)) = (c.delta_params(cache.ring(i)), cache.states(i)) else {
            return Ok(mixed);
        };
        let (Some(taps), Some(terms), Some(gain)) =
            (&layer.conv, &layer.ssm_terms, &layer.ssm_norm)
        else {
            return Ok(mixed);
        };
        let (history, rows) = (cache.k(i), cache.v(i));
        let label = self.label("short_conv");
        conv.record(&mut self.r, label, c.conv_taps, [frame, mix, taps, history, rows])?; // rows [N, 2 G DK + H DV + 2 H]
        let label = self.label("delta_net");
        delta_net.record(&mut self.r, &label, params, [frame, rows, terms, states, mixed])?;
        let (heads, size) = (params.heads, params.value_dim);
        let stride = mix.shape[1] as u32;
        let first = stride - heads * size;
        let params = GateParams { heads, size, stride, first, eps: c.norms.eps };
        let label = self.label("gate");
        gate.record(&mut self.r, label, params, [frame, mix, gain, mixed])?;
        Ok(mixed)
    }
}

/// What every op around the cache is told.
fn params(c: &Config, cache: &Cache, layer: usize) -> AttentionParams {
    let LayerKind { n_head_kv, head_dim, .. } = c.layers[layer];
    let [heads, kv_heads, head_dim] = [c.n_head, n_head_kv, head_dim].map(|n| n as u32);
    AttentionParams {
        heads,
        kv_heads,
        head_dim,
        rope_dim: c.rope_dim(layer) as u32,
        ring: cache.ring(layer),
        scale: c.scales.attention,
        cap: c.caps.attention.unwrap_or(0.0),
        forgets: u32::from(cache.forgets_sinks(layer)),
        first: 0,
        span: 0,
        stride: cache.stride(layer),
    }
}

/// How queries, keys and values are normalised, which are what a product gives and not the residual stream.
fn head_norms(c: &Config, layer: usize, norms: HeadNorms) -> HeadNormParams {
    let LayerKind { n_head_kv, head_dim, .. } = c.layers[layer];
    let [heads, kv_heads, head_dim] = [c.n_head, n_head_kv, head_dim].map(|n| n as u32);
    let whole = norms == HeadNorms::Rows;
    HeadNormParams {
        stride: (heads + 2 * kv_heads) * head_dim,
        q_norms: if whole { 1 } else { heads },
        q_size: if whole { heads * head_dim } else { head_dim },
        k_norms: if whole { 1 } else { kv_heads },
        k_size: if whole { kv_heads * head_dim } else { head_dim },
        v_norms: if norms == HeadNorms::WithValues { kv_heads } else { 0 },
        own: u32::from(norms == HeadNorms::OwnGains),
        eps: c.norms.eps,
    }
}
