//! Memory is flat on every driver: some have kept something of each dispatch.
#![allow(clippy::print_stdout, reason = "what was measured is told")]
use crate::format::DType;
use crate::gpu::{AdapterChoice, Gpu};
use crate::model::KvType;
use crate::session::Session;
use crate::tests::tiny::{Tiny, session, streaming, text};
use crate::text::SamplerSettings;
use pollster::block_on;
use std::process::Command;
use std::sync::Arc;

/// Bytes that a process may grow by once it is warm.
const GROWTH: usize = 4 << 20;
/// Steps until it is, and steps that count.
const WARM: usize = 20;
const STEPS: usize = 200;
const PROMPT: usize = 300;

/// Two layers of SmolLM2-135M, and its whole vocabulary.
fn real_shapes() -> Tiny {
    Tiny {
        n_layer: 2,
        n_embd: 576,
        n_head: 9,
        n_head_kv: 3,
        head_dim: 64,
        rope_dim: 64,
        n_ff: 1536,
        n_vocab: 49_152,
        dtype: DType::Q4_0,
        ..Tiny::default()
    }
}

fn resident() -> usize {
    memory_stats::memory_stats().expect("a system that tells a process its memory").physical_mem
}

fn assert_flat(what: &str, before: usize) {
    let grown = resident().saturating_sub(before);
    println!("{what}: grown by {grown} bytes of {before}");
    assert!(grown <= GROWTH, "{what}: the process has grown by {grown} bytes");
}

fn generate(session: &mut Session, what: &str, settings: SamplerSettings) {
    session.reset();
    block_on(session.feed(&text(1, 4))).unwrap();
    let mut generation = session.generate(settings, &[]).unwrap();
    let mut before = 0;
    for step in 0..WARM + STEPS {
        if step == WARM {
            before = resident();
        }
        block_on(generation.next(session)).unwrap().unwrap();
    }
    assert_flat(what, before);
}

/// The test runs in a process of its own: other tests would be counted too.
fn alone(name: &str) -> bool {
    const ALONE: &str = "BROOKLET_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let done = command.args(["--exact", &path, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let [out, err] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{out}{err}");
    assert!(done.status.success() && out.contains("1 passed"), "{path}: {}", done.status);
    false
}

/// A session of the model with so large a chunk.
fn session_of(chunk: usize) -> Session {
    let gpu = Arc::new(block_on(Gpu::open(AdapterChoice::Best)).unwrap());
    session(&real_shapes().model(&gpu), streaming(4, 252, chunk, KvType::F16))
}

#[test]
fn greedy_steps_keep_nothing() {
    if alone("greedy_steps_keep_nothing") {
        let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
        generate(&mut session_of(8), "greedy", greedy);
    }
}

#[test]
fn sampled_steps_keep_nothing() {
    if alone("sampled_steps_keep_nothing") {
        generate(&mut session_of(8), "sampled", SamplerSettings::default());
    }
}

#[test]
fn a_prompt_token_by_token_keeps_nothing() {
    if alone("a_prompt_token_by_token_keeps_nothing") {
        let mut session = session_of(1);
        block_on(session.feed(&text(1, WARM))).unwrap();
        let before = resident();
        block_on(session.feed(&text(2, PROMPT))).unwrap();
        assert_flat("a prompt with a chunk of 1", before);
    }
}
