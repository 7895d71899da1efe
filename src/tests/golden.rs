//! The default model against other engines' outputs (tests/fixtures/golden/ORIGIN.md).
use super::support::gpu;
use super::tiny::session;
use crate::format::{FileSource, Gguf};
use crate::model::{CacheSettings, KvType, Model, Policy};
use crate::text::{Tokenizer, Vocab};
use pollster::block_on;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct Golden {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    prompt: String,
    prompt_tokens: Vec<u32>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    t: u32,
    top5: Vec<(u32, f32)>,
}

fn golden(engine: &str) -> Golden {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden");
    let text = std::fs::read_to_string(format!("{folder}/{engine}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The default model. Its absence is a failure, not a skip.
pub(super) fn opened() -> (FileSource, Gguf) {
    let path = crate::format::default_model().unwrap();
    let source = FileSource::open(&path).expect("run ./build.sh setup to get the default model");
    let gguf = block_on(Gguf::read(&source)).unwrap();
    (source, gguf)
}

pub(super) fn load(source: &FileSource, gguf: &Gguf) -> Arc<Model> {
    let mut unheard = |_, _| ();
    let model = Model::load(Arc::new(gpu()), source, gguf, &mut unheard);
    Arc::new(block_on(model).unwrap())
}

#[test]
fn the_default_model_has_the_ids_and_logits_of_other_engines() {
    // One engine is enough to be slow for; the other says the same (ORIGIN.md).
    compare([("llamacpp_cpu_f32weights_f32kv", usize::MAX, 20), ("torch_fp32", 1, 4)]);
}

#[test]
#[ignore = "a minute and more on software drivers"]
fn all_of_what_other_engines_have() {
    compare(["llamacpp_cpu_f32weights_f32kv", "torch_fp32"].map(|e| (e, usize::MAX, usize::MAX)));
}

/// A little of it, for devices that take long.
#[test]
fn a_prompt_has_the_ids_and_logits_of_another_engine() {
    compare([("torch_fp32", 1, 3)]);
}

/// So many prompts and steps of each engine.
fn compare<const N: usize>(engines: [(&str, usize, usize); N]) {
    let (source, gguf) = opened();
    let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf).unwrap()).unwrap();
    let model = load(&source, &gguf);
    let settings = CacheSettings {
        kv: KvType::F32,
        ..CacheSettings::for_model(&model.config, Policy::Streaming)
    };
    super::text::check_ids("SmolLM2", &tokenizer, &super::text::fixture("smollm2_ids"));
    let mut session = session(&model, settings);
    for (engine, prompts, steps) in engines {
        let mut worst = (0.0f32, String::new());
        let mut ties = 0;
        for prompt in golden(engine).prompts.iter().take(prompts) {
            let ids = tokenizer.encode(&prompt.prompt, true).unwrap();
            assert_eq!(ids, prompt.prompt_tokens, "{}: ids of {:?}", prompt.name, prompt.prompt);
            session.reset();
            block_on(session.feed(&ids)).unwrap();
            for (i, step) in prompt.steps.iter().take(steps).enumerate() {
                let logits = block_on(session.logits()).unwrap();
                for &(id, expected) in &step.top5 {
                    let off = (logits[id as usize] - expected).abs();
                    if off > worst.0 || off.is_nan() {
                        worst = (off, format!("{} step {i} token {id}", prompt.name));
                    }
                }
                let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                if step.top5[0].1 - step.top5[1].1 > 0.05 {
                    assert_eq!(best, Some(step.t as usize), "{} step {i}", prompt.name);
                } else {
                    ties += 1;
                }
                block_on(session.feed(&[step.t])).unwrap();
            }
        }
        eprintln!("{engine}: off by {} at most ({}), {ties} near ties", worst.0, worst.1);
        assert!(worst.0 <= 0.05, "{engine}: off by {} at {}", worst.0, worst.1);
    }
}

/// A prompt far longer than the window, in chunks of any size.
#[test]
fn a_long_prompt_gives_the_same_logits_in_any_chunks() {
    let (source, gguf) = opened();
    let model = load(&source, &gguf);
    // What follows the golden prompts: 5 windows' worth.
    let prompts = golden("torch_fp32").prompts;
    let ids: Vec<u32> = prompts.iter().flat_map(|p| p.steps.iter().map(|s| s.t)).collect();
    let run = |chunk| {
        let window = 12;
        let settings = CacheSettings {
            kv: KvType::F32,
            window,
            chunk,
            ..CacheSettings::for_model(&model.config, Policy::Streaming)
        };
        let mut session = session(&model, settings);
        block_on(session.feed(&ids[..60])).unwrap();
        block_on(session.logits()).unwrap()
    };
    let expected = run(60);
    for chunk in [17, 40] {
        super::support::assert_close(&format!("chunk {chunk}"), &run(chunk), &expected, 1e-3, 0.0);
    }
}
