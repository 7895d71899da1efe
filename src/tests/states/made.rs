//! Random models with layers that do not attend: small llamas of which some layers are made anew.
use crate::format::{Array, BytesSource, DType, Gguf, Value};
use crate::model::{Config, Model};
use crate::reference::Oracle;
use crate::tests::gguf_file::GgufFile;
use crate::tests::support::{gpu, noise};
use crate::tests::tiny::Tiny;
use pollster::block_on;
use std::sync::Arc;

/// A model to be made.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) base: Tiny,
    /// Which layers attend.
    pub(super) attends: Vec<bool>,
    pub(super) taps: usize,
    /// Of layers with the gated delta rule, where they have that: heads of keys and of values, and their dimensions.
    pub(super) delta: Option<[usize; 4]>,
    /// Gaps between layers that attend, where a file says that instead of a list.
    pub(super) interval: Option<usize>,
}

fn random(seed: u64, dims: &[usize], middle: f32, scale: f32) -> (Vec<u64>, u32, Vec<u8>) {
    let values = noise(seed, dims.iter().product());
    let bytes = values.iter().flat_map(|v| (middle + scale * v).to_le_bytes()).collect();
    (dims.iter().map(|&n| n as u64).collect(), DType::F32.ggml_id(), bytes)
}

impl Made {
    pub(super) fn lfm2(base: Tiny, attends: &[bool], taps: usize) -> Self {
        let base = Tiny { n_layer: attends.len(), ..base };
        Self { base, attends: attends.to_vec(), taps, delta: None, interval: None }
    }

    pub(super) fn qwen35(base: Tiny, attends: &[bool], taps: usize, delta: [usize; 4]) -> Self {
        Self { delta: Some(delta), ..Self::lfm2(base, attends, taps) }
    }

    pub(super) fn file(&self) -> GgufFile {
        match self.delta {
            None => self.file_lfm2(),
            Some(delta) => self.file_qwen35(delta),
        }
    }

    fn file_qwen35(&self, [groups, heads, key_dim, value_dim]: [usize; 4]) -> GgufFile {
        let Tiny { n_embd: d, head_dim, n_head, seed, .. } = self.base;
        let mut file = self.base.parts();
        for (key, value) in &mut file.metadata {
            *key = key.replace("llama.", "qwen35.");
            if key == "general.architecture" {
                *value = Value::String("qwen35".into());
            }
        }
        for (key, value) in [
            ("conv_kernel", self.taps),
            ("state_size", key_dim),
            ("group_count", groups),
            ("time_step_rank", heads),
            ("inner_size", heads * value_dim),
        ] {
            file.metadata.push((format!("qwen35.ssm.{key}"), Value::U32(value as u32)));
        }
        let recurrent = self.attends.iter().map(|attends| !attends).collect();
        file.metadata.push(match self.interval {
            Some(every) => ("qwen35.full_attention_interval".into(), Value::U32(every as u32)),
            None => {
                ("qwen35.attention.recurrent_layers".into(), Value::Array(Array::Bool(recurrent)))
            }
        });
        let of = |i: usize, part: &str| format!("blk.{i}.{part}");
        let attention = ["attn_q", "attn_k", "attn_v", "attn_output"];
        file.tensors.retain(|(name, ..)| {
            let there = |(i, &attends): (usize, &bool)| {
                let lost = |part: &str| *name == of(i, &format!("{part}.weight"));
                attention[..if attends { 1 } else { 4 }].iter().any(|part| lost(part))
            };
            !self.attends.iter().enumerate().any(there)
        });
        for (name, ..) in &mut file.tensors {
            *name = name.replace("ffn_norm", "post_attention_norm");
        }
        let mut seed = 9000 * seed;
        let mut put = |name: String, dims: &[usize], middle: f32, scale: f32| {
            seed += 1;
            let (dims, id, bytes) = random(seed, dims, middle, scale);
            file.tensors.push((name, dims, id, bytes));
        };
        let (keys, values) = (groups * key_dim, heads * value_dim);
        let gain = (3.0 / d as f32).sqrt();
        for (i, &attends) in self.attends.iter().enumerate() {
            if attends {
                put(of(i, "attn_q.weight"), &[d, 2 * n_head * head_dim], 0.0, gain);
                put(of(i, "attn_q.bias"), &[2 * n_head * head_dim], 0.0, 0.3);
                put(of(i, "attn_q_norm.weight"), &[head_dim], 1.0, 0.3);
                put(of(i, "attn_k_norm.weight"), &[head_dim], 1.0, 0.3);
                continue;
            }
            put(of(i, "attn_qkv.weight"), &[d, 2 * keys + values], 0.0, 2.0 * gain);
            put(of(i, "ssm_conv1d.weight"), &[self.taps, 2 * keys + values], 0.0, 1.0);
            put(of(i, "ssm_alpha.weight"), &[d, heads], 0.0, gain);
            put(of(i, "ssm_beta.weight"), &[d, heads], 0.0, 2.0 * gain);
            put(of(i, "attn_gate.weight"), &[d, values], 0.0, 2.0 * gain);
            // Some forget at once, some hardly ever.
            put(of(i, "ssm_a"), &[heads], -0.25, 0.24);
            put(of(i, "ssm_dt.bias"), &[heads], 0.0, 1.0);
            put(of(i, "ssm_norm.weight"), &[value_dim], 1.0, 0.3);
            put(of(i, "ssm_out.weight"), &[values, d], 0.0, (3.0 / values as f32).sqrt());
        }
        file
    }

    fn file_lfm2(&self) -> GgufFile {
        let Tiny { n_embd: d, head_dim, n_head_kv, seed, .. } = self.base;
        let mut file = self.base.parts();
        for (key, value) in &mut file.metadata {
            *key = key.replace("llama.", "lfm2.");
            if key == "general.architecture" {
                *value = Value::String("lfm2".into());
            }
            if key == "lfm2.attention.head_count_kv" {
                let heads = |&attends: &bool| if attends { n_head_kv as i32 } else { 0 };
                *value = Value::Array(Array::I32(self.attends.iter().map(heads).collect()));
            }
        }
        let taps = Value::U32(self.taps as u32);
        file.metadata.push(("lfm2.shortconv.l_cache".into(), taps));
        let mut seed = 7000 * seed;
        let mut put = |name: String, dims: &[usize], middle: f32, scale: f32| {
            seed += 1;
            let (dims, id, bytes) = random(seed, dims, middle, scale);
            file.tensors.push((name, dims, id, bytes));
        };
        for (i, &attends) in self.attends.iter().enumerate() {
            let gain = (3.0 / d as f32).sqrt();
            if attends {
                put(format!("blk.{i}.attn_q_norm.weight"), &[head_dim], 1.0, 0.3);
                put(format!("blk.{i}.attn_k_norm.weight"), &[head_dim], 1.0, 0.3);
            } else {
                put(format!("blk.{i}.shortconv.in_proj.weight"), &[d, 3 * d], 0.0, gain);
                put(format!("blk.{i}.shortconv.conv.weight"), &[self.taps, d], 0.0, 1.0);
                put(format!("blk.{i}.shortconv.out_proj.weight"), &[d, d], 0.0, gain);
                put(format!("blk.{i}.shortconv.out_proj.bias"), &[d], 0.0, 0.3);
            }
        }
        let attention = |name: &str| {
            let i = (0..self.attends.len()).find(|i| name.starts_with(&format!("blk.{i}.attn_")));
            i.is_some_and(|i| !self.attends[i]) && !name.ends_with("attn_norm.weight")
        };
        file.tensors.retain(|(name, ..)| !attention(name));
        for (name, ..) in &mut file.tensors {
            if name == "output_norm.weight" {
                *name = "token_embd_norm.weight".into();
            }
        }
        file
    }

    fn opened(&self) -> (BytesSource, Gguf) {
        let source = self.file().source();
        let gguf = block_on(Gguf::read(&source)).unwrap();
        (source, gguf)
    }

    pub(super) fn model(&self) -> Arc<Model> {
        let (source, gguf) = self.opened();
        let mut unheard = |_, _| ();
        let model = Model::load(Arc::new(gpu()), &source, &gguf, &mut unheard);
        Arc::new(block_on(model).unwrap())
    }

    pub(super) fn oracle(&self, sinks: usize, window: usize) -> Oracle {
        let (source, gguf) = self.opened();
        let config = Config::from_gguf(&gguf).unwrap();
        block_on(Oracle::read(&source, &gguf, config, sinks, window)).unwrap()
    }

    /// What a file that was changed is refused with.
    pub(super) fn refused(&self, change: impl Fn(&mut GgufFile)) -> String {
        let mut file = self.file();
        change(&mut file);
        let gguf = block_on(Gguf::read(&file.source())).unwrap();
        Config::from_gguf(&gguf).unwrap_err().to_string()
    }
}
