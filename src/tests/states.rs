//! Models with layers that do not attend, of many sizes, against a stream on the CPU; and what cannot be had of them.
use super::gguf_file::GgufFile;
use super::support::{gpu, noise};
use super::tiny::{Tiny, hold_to_oracle, session, streaming, text};
use crate::format::{Array, BytesSource, DType, Gguf, Value};
use crate::model::{CacheSettings, Config, KvType, Model, Policy};
use crate::reference::Oracle;
use crate::session::Session;
use pollster::block_on;
use std::sync::Arc;

const F32: KvType = KvType::F32;

/// A model to be made.
#[derive(Clone)]
struct Made {
    base: Tiny,
    /// Which layers attend.
    attends: Vec<bool>,
    taps: usize,
}

fn random(seed: u64, dims: &[usize], middle: f32, scale: f32) -> (Vec<u64>, u32, Vec<u8>) {
    let values = noise(seed, dims.iter().product());
    let bytes = values.iter().flat_map(|v| (middle + scale * v).to_le_bytes()).collect();
    (dims.iter().map(|&n| n as u64).collect(), DType::F32.ggml_id(), bytes)
}

impl Made {
    fn lfm2(base: Tiny, attends: &[bool], taps: usize) -> Self {
        let base = Tiny { n_layer: attends.len(), ..base };
        Self { base, attends: attends.to_vec(), taps }
    }

    fn file(&self) -> GgufFile {
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

    fn model(&self) -> Arc<Model> {
        let (source, gguf) = self.opened();
        let mut unheard = |_, _| ();
        let model = Model::load(Arc::new(gpu()), &source, &gguf, &mut unheard);
        Arc::new(block_on(model).unwrap())
    }

    fn oracle(&self, sinks: usize, window: usize) -> Oracle {
        let (source, gguf) = self.opened();
        let config = Config::from_gguf(&gguf).unwrap();
        block_on(Oracle::read(&source, &gguf, config, sinks, window)).unwrap()
    }

    /// What a file that was changed is refused with.
    fn refused(&self, change: impl Fn(&mut GgufFile)) -> String {
        let mut file = self.file();
        change(&mut file);
        let gguf = block_on(Gguf::read(&file.source())).unwrap();
        Config::from_gguf(&gguf).unwrap_err().to_string()
    }
}

/// Of different sizes, places of the layers that attend, and lengths of what the others look back on.
fn convolutions() -> [Made; 4] {
    let (base, [c, a]) = (Tiny::default(), [false, true]);
    let wide =
        Tiny { n_embd: 96, n_head: 3, n_head_kv: 1, head_dim: 32, rope_dim: 32, ..base.clone() };
    [
        Made::lfm2(base.clone(), &[c, a], 4),
        Made::lfm2(Tiny { seed: 2, ..base.clone() }, &[a, c, c], 1),
        Made::lfm2(Tiny { seed: 3, ..wide }, &[c, c, a], 3),
        Made::lfm2(Tiny { seed: 4, n_head_kv: 4, ..base }, &[a, c], 9),
    ]
}

#[test]
fn convolutions_of_all_sizes_stream_as_the_paper_does() {
    let shapes = [(4, 9, 5), (0, 1, 1), (2, 13, 7), (3, 6, 32)];
    for (made, (sinks, window, chunk)) in convolutions().iter().zip(shapes) {
        let mut session = session(&made.model(), streaming(sinks, window, chunk, F32));
        let what = format!("{} taps, {sinks} + {window}", made.taps);
        let tokens = text(5, 120);
        hold_to_oracle(&what, &mut session, &mut made.oracle(sinks, window), &tokens, 1e-3);
    }
}

/// A token computed anew with others before it begins where nothing was.
#[test]
fn all_policies_are_right_or_refused() {
    let made = &convolutions()[0];
    let (model, tokens) = (made.model(), text(6, 40));
    let settings = streaming(0, 16, 5, F32);
    let recompute = CacheSettings { policy: Policy::Recompute, ..settings };
    let mut anew = session(&model, recompute);
    let mut oracle = made.oracle(0, 64);
    for (i, &token) in tokens.iter().enumerate() {
        block_on(anew.feed(&[token])).unwrap();
        if i % 7 != 0 {
            continue;
        }
        oracle.restart();
        let seen = &tokens[(i + 1).saturating_sub(16)..=i];
        let expected = seen.iter().map(|&token| oracle.step(token)).last().unwrap();
        let expected: Vec<f32> = expected.iter().map(|&logit| logit as f32).collect();
        let found = block_on(anew.logits()).unwrap();
        super::support::assert_close("recompute", &found, &expected, 1e-3, 0.0);
    }
    let mut dense =
        session(&model, CacheSettings { policy: Policy::Dense, window: 40, ..settings });
    hold_to_oracle("dense", &mut dense, &mut made.oracle(0, 64), &tokens, 1e-3);
    let half = CacheSettings { policy: Policy::HalfDiscard, ..settings };
    let error = block_on(Session::new(model, half)).err().unwrap().to_string();
    assert!(error.contains("half-discard") && error.contains("state"), "{error}");
}

#[test]
fn files_of_convolutions_that_cannot_run_are_refused_in_words() {
    let made = &convolutions()[0];
    let set = |name: &'static str, value: Value| {
        move |file: &mut GgufFile| {
            let key = format!("lfm2.{name}");
            file.metadata.retain(|(k, _)| *k != key);
            file.metadata.push((key, value.clone()));
        }
    };
    let heads =
        |heads: &[i32]| set("attention.head_count_kv", Value::Array(Array::I32(heads.to_vec())));
    for (error, text) in [
        (made.refused(heads(&[0, 0])), "a model without attention"),
        (made.refused(heads(&[0, -2])), "head_count_kv is -2"),
        (made.refused(heads(&[0, 2, 0])), "3 sizes for 2 layers"),
        (made.refused(heads(&[2, 0])), "attn_q.weight is missing"),
        (made.refused(set("shortconv.l_cache", Value::U32(0))), "shortconv.l_cache is 0"),
        (made.refused(set("shortconv.l_cache", Value::U32(65))), "shortconv.l_cache is 65"),
        (made.refused(set("shortconv.l_cache", Value::U32(3))), "shortconv.conv.weight has shape"),
    ] {
        assert!(error.contains(text), "{error}");
    }
}
