//! A warm token allocates nothing on the host but what wgpu allocates when it encodes and submits.
//!
//! Every allocation is recorded with its stack. It is the engine's own if, going outwards, a function of this crate
//! comes before one of wgpu; what wgpu was called for by the engine is wgpu's. A stack that neither the engine, wgpu nor
//! this test is on is a thread's of somebody else: rayon's idle workers, the test harness.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
#![allow(clippy::print_stdout, reason = "what wgpu allocates is told, not held to anything")]
use brooklet::format::{FileSource, Gguf};
use brooklet::gpu::Gpu;
use brooklet::model::{CacheSettings, Model, Policy};
use brooklet::session::Session;
use brooklet::text::{Detokenizer, SamplerSettings, Tokenizer, Vocab};
use pollster::block_on;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");
/// Tokens until nothing is made for the first time any more, and tokens that count.
const WARM: usize = 64;
const TOKENS: usize = 64;

#[derive(Debug, Default)]
struct Allocations {
    engine: u64,
    wgpu: u64,
    others: u64,
    /// Where the engine's were made.
    places: Vec<String>,
}

/// Whose function a line of a stack names: "0x55d0c0: brooklet::session::Session::feed (src/session.rs:9:5)".
fn owner(frame: &str) -> Option<&'static str> {
    let function = frame.split_once(": ").map_or(frame, |(_, function)| function);
    let path = function.trim_start_matches(['<', '&']);
    ["brooklet", "wgpu", "allocations"].into_iter().find(|name| path.starts_with(name))
}

fn read(profile: &Path) -> Allocations {
    let profile: Value = serde_json::from_slice(&std::fs::read(profile).unwrap()).unwrap();
    let frames: Vec<&str> =
        profile["ftbl"].as_array().unwrap().iter().map(|frame| frame.as_str().unwrap()).collect();
    let mut found = Allocations::default();
    for point in profile["pps"].as_array().unwrap() {
        let blocks = point["tbk"].as_u64().unwrap();
        let stack = point["fs"].as_array().unwrap().iter();
        let stack: Vec<&str> = stack.map(|i| frames[i.as_u64().unwrap() as usize]).collect();
        match stack.iter().find_map(|frame| owner(frame)) {
            Some("wgpu") => found.wgpu += blocks,
            None => found.others += blocks,
            // What the engine's functions were inlined into is taken for theirs.
            Some(_) => {
                found.engine += blocks;
                found.places.push(format!("{blocks} blocks:\n    {}", stack.join("\n    ")));
            }
        }
    }
    found
}

/// What tokens allocate, text included.
async fn tokens(temperature: f32, within: Duration, allocates: bool) -> Allocations {
    let source = FileSource::open(Path::new(TINY)).unwrap();
    let gguf = Gguf::read(&source).await.unwrap();
    let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf).unwrap()).unwrap();
    let gpu = Arc::new(Gpu::open_noop().await.unwrap());
    let model = Arc::new(Model::load(gpu, &source, &gguf, &mut |_, _| ()).await.unwrap());
    let settings = CacheSettings::for_model(&model.config, Policy::Streaming);
    let mut session = Session::new(model, settings).await.unwrap();
    session.submit_within(within);
    session.feed(&[1, 2, 3]).await.unwrap();
    let sampling = SamplerSettings { temperature, ..SamplerSettings::default() };
    let mut generation = session.generate(sampling, tokenizer.eog()).unwrap();
    generation.submit_together(4);
    let mut detokenizer = Detokenizer::new();
    for _ in 0..WARM {
        let token = generation.next(&mut session).await.unwrap().unwrap();
        detokenizer.push(&tokenizer, token);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heap.json");
    let recorder = dhat::Profiler::builder().file_name(&path).trim_backtraces(None).build();
    for _ in 0..TOKENS {
        let token = generation.next(&mut session).await.unwrap().unwrap();
        detokenizer.push(&tokenizer, token);
        if allocates {
            session.logits().await.unwrap();
        }
    }
    drop(recorder);
    read(&path)
}

#[test]
fn a_warm_token_allocates_nothing_but_what_wgpu_does() {
    // Four steps in one submission, and every layer in its own.
    let (whole, parted) = (Duration::from_secs(1 << 20), Duration::ZERO);
    for (how, temperature, within) in
        [("greedy", 0.0, whole), ("sampled", 0.8, whole), ("greedy, by layers", 0.0, parted)]
    {
        let found = block_on(tokens(temperature, within, false));
        let per_token = found.wgpu as f64 / TOKENS as f64;
        println!(
            "{how}: {per_token:.2} allocations a token by wgpu, {} by the engine, {} by others",
            found.engine, found.others
        );
        assert_eq!(found.engine, 0, "{how}: {}", found.places.join("\n"));
        assert!(found.wgpu > 0, "{how}: nothing was recorded");
    }
    // What makes an allocation of the engine's own is found.
    let found = block_on(tokens(0.8, whole, true));
    assert!(found.engine >= TOKENS as u64, "{found:?}");
    assert!(found.places.iter().any(|place| place.contains("logits")), "{found:?}");
}
