//! Models with experts whose files are made here: Mixtral's kind, which is called llama, and what is refused.
use super::gguf_file::GgufFile;
use super::support::{gpu, noise};
use super::tiny::{Tiny, hold_to_oracle, session, streaming, text};
use crate::Result;
use crate::format::{BytesSource, DType, Gguf, Value};
use crate::model::{Config, Experts, KvType, Model};
use crate::reference::Oracle;
use pollster::block_on;
use std::sync::Arc;

const COUNT: usize = 5;
const USED: u32 = 3;
const SCALE: f32 = 1.5;

/// A tiny llama whose layers have experts of 84 rows, which fill no whole unit.
fn mixtral() -> GgufFile {
    let tiny = Tiny::default();
    let mut file = tiny.parts();
    file.tensors.retain(|(name, ..)| !name.contains("ffn_") || name.contains("ffn_norm"));
    let [d, f] = [tiny.n_embd, tiny.n_ff];
    for layer in 0..tiny.n_layer {
        for (i, (part, dims)) in [
            ("ffn_gate_inp", vec![d, COUNT]),
            ("ffn_gate_exps", vec![d, f, COUNT]),
            ("ffn_up_exps", vec![d, f, COUNT]),
            ("ffn_down_exps", vec![f, d, COUNT]),
        ]
        .into_iter()
        .enumerate()
        {
            let scale = (3.0 / dims[0] as f32).sqrt();
            let values = noise((10 * layer + i) as u64, dims.iter().product());
            let bytes = values.iter().flat_map(|v| (scale * v).to_le_bytes()).collect();
            let dims = dims.iter().map(|&n| n as u64).collect();
            let name = format!("blk.{layer}.{part}.weight");
            file.tensors.push((name, dims, DType::F32.ggml_id(), bytes));
        }
    }
    file.with("llama.expert_count", Value::U32(COUNT as u32))
        .with("llama.expert_used_count", Value::U32(USED))
        .with("llama.expert_weights_scale", Value::F32(SCALE))
}

fn read(file: &GgufFile) -> (BytesSource, Gguf) {
    let source = BytesSource::new("mixtral.gguf", file.bytes());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    (source, gguf)
}

fn config(file: &GgufFile) -> Result<Config> {
    Config::from_gguf(&read(file).1)
}

#[test]
fn a_llama_with_experts_streams_as_the_paper_has_it() {
    let gpu = Arc::new(gpu());
    let (source, gguf) = read(&mixtral());
    let found = Config::from_gguf(&gguf).unwrap();
    assert_eq!(found.experts, Some(Experts { count: COUNT, used: USED as usize, scale: SCALE }));
    assert!(found.kinds().contains("a token goes to 3 of 5 experts"), "{}", found.kinds());
    let mut unheard = |_, _| ();
    let model = Model::load(gpu, &source, &gguf, &mut unheard);
    let model = Arc::new(block_on(model).unwrap());
    let tokens = text(3, 80);
    for (sinks, window, chunk) in [(4, 11, 1), (2, 9, 7)] {
        let mut session = session(&model, streaming(sinks, window, chunk, KvType::F32));
        let oracle = Oracle::read(&source, &gguf, found.clone(), sinks, window);
        let mut oracle = block_on(oracle).unwrap();
        let what = format!("{sinks} + {window}");
        hold_to_oracle(&what, &mut session, &mut oracle, &tokens, 1e-3);
    }
}

#[test]
fn experts_of_another_kind_are_refused_by_name() {
    let with = |key: &str, value: Value| {
        let (mut file, key) = (mixtral(), format!("llama.{key}"));
        file.metadata.retain(|(other, _)| *other != key);
        file.with(&key, value)
    };
    let cases = [
        (with("expert_used_count", Value::U32(0)), "llama.expert_used_count"),
        (with("expert_used_count", Value::U32(6)), "6 of 5 experts"),
        (with("expert_shared_count", Value::U32(1)), "experts that all tokens share"),
        (with("expert_group_count", Value::U32(4)), "groups of experts"),
        (with("expert_gating_func", Value::U32(2)), "not weighed by softmax"),
        (with("expert_weights_norm", Value::Bool(false)), "do not add up to one"),
        (with("leading_dense_block_count", Value::U32(1)), "layers without experts"),
        (with("expert_weights_scale", Value::F32(f32::NAN)), "experts of no weight"),
        (with("expert_count", Value::U32(4)), "has shape [64, 5]"),
        (with("expert_feed_forward_length", Value::U32(42)), "ffn_gate_exps.weight has shape"),
        (with("expert_count", Value::U32(0)), "blk.0.ffn_up.weight is missing"),
    ];
    for (file, message) in cases {
        let found = config(&file).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(found.contains(message), "{message:?} is not in {found:?}");
    }
    assert!(config(&with("expert_gating_func", Value::U32(1))).is_ok());
    assert!(config(&with("expert_shared_count", Value::U32(0))).is_ok());
}
