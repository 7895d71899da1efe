//! Every family against transformers in float64, on a tiny model of its own (tests/fixtures/families/ORIGIN.md), and its stream
//! against the paper's.
mod rows;

use super::support::{assert_close, gpu};
use super::tiny::{hold_to_oracle, session, streaming};
use crate::format::{FileSource, Gguf, TensorInfo};
use crate::gpu::{Counts, Gpu};
use crate::model::{
    CacheSettings, Config, Experts, KvType, LoadSettings, Model, Policy, Positions, Softmax,
};
use crate::ops::{ExpertTiles, GroupExperts, RingParams};
use crate::reference::Oracle;
use crate::session::Session;
use crate::text::{SamplerSettings, Tokenizer, Vocab};
use pollster::block_on;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<Sequence>,
    tokenizer_checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Sequence {
    name: String,
    tokens: Vec<u32>,
    positions: Vec<usize>,
    fixed_ids: Vec<u32>,
    fixed: Vec<Vec<f32>>,
    top8: Vec<Vec<(u32, f32)>>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct Check {
    text: String,
    ids: Vec<u32>,
}

/// What arithmetic in f32 may be off by.
const CLOSE: f32 = 1e-3;

/// A family's tiny model, with its figures.
struct Tiny {
    name: &'static str,
    path: PathBuf,
    golden: Golden,
}

impl Tiny {
    fn of(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        let path = folder.join(format!("{name}.gguf"));
        let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
        Self { name, path, golden: serde_json::from_str(&text).unwrap() }
    }

    fn opened(&self) -> (FileSource, Gguf) {
        let source = FileSource::open(&self.path).unwrap();
        let gguf = block_on(Gguf::read(&source)).unwrap();
        (source, gguf)
    }

    fn model(&self, gpu: &Arc<Gpu>, change: impl Fn(&mut Config)) -> Arc<Model> {
        let (source, gguf) = self.opened();
        let mut config = Config::from_gguf(&gguf).unwrap();
        change(&mut config);
        let (settings, mut unheard) = (LoadSettings::new(config), |_, _| ());
        let model = Model::with_settings(gpu.clone(), &source, &gguf, settings, &mut unheard);
        Arc::new(block_on(model).unwrap())
    }

    fn sequence(&self, name: &str) -> &Sequence {
        self.golden.sequences.iter().find(|sequence| sequence.name == name).unwrap()
    }

    /// Feeds a sequence, holds logits at its positions to those of transformers, and then 24 tokens.
    fn agrees(&self, session: &mut Session, sequence: &Sequence) {
        let Sequence { name, tokens, positions, fixed_ids, fixed, top8, greedy } = sequence;
        let CacheSettings { policy, chunk, .. } = session.cache().settings();
        let mut fed = 0;
        for (k, &position) in positions.iter().enumerate() {
            block_on(session.feed(&tokens[fed..=position])).unwrap();
            fed = position + 1;
            let logits = block_on(session.logits()).unwrap();
            let of = |ids: &[u32]| ids.iter().map(|&id| logits[id as usize]).collect::<Vec<_>>();
            let family = self.name;
            let what = format!("{family}, {name}, {policy:?}, chunks of {chunk}, after {position}");
            assert_close(&what, &of(fixed_ids), &fixed[k], CLOSE, 0.0);
            let (ids, highest): (Vec<_>, Vec<_>) = top8[k].iter().copied().unzip();
            assert_close(&what, &of(&ids), &highest, CLOSE, 0.0);
        }
        assert_eq!(fed, tokens.len(), "the last position is the last token's");
        let settings = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
        let mut generation = session.generate(settings, &[]).unwrap();
        let next = || block_on(generation.next(session)).unwrap().unwrap();
        let found: Vec<u32> = std::iter::repeat_with(next).take(greedy.len()).collect();
        assert_eq!(found, *greedy, "{}, {name}, chunks of {chunk}", self.name);
    }

    /// Text to ids as llama.cpp has it.
    fn tokenizes(&self) {
        let (_, gguf) = self.opened();
        let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf).unwrap()).unwrap();
        assert!(!self.golden.tokenizer_checks.is_empty(), "{}", self.name);
        for Check { text, ids } in &self.golden.tokenizer_checks {
            assert_eq!(tokenizer.encode(text, true).unwrap(), *ids, "{}: {text:?}", self.name);
        }
    }

    /// Logits of a stream, long after its cache was full, against the oracle.
    fn streams(&self, model: &Arc<Model>) {
        let (source, gguf) = self.opened();
        let tokens = &self.sequence("long").tokens;
        for (sinks, window, chunk) in [(4, 13, 1), (1, 20, 7)] {
            let mut session = session(model, streaming(sinks, window, chunk, KvType::F32));
            let oracle = Oracle::read(&source, &gguf, model.config.clone(), sinks, window);
            let mut oracle = block_on(oracle).unwrap();
            let what = format!("{}, {sinks} + {window}", self.name);
            hold_to_oracle(&what, &mut session, &mut oracle, tokens, CLOSE);
        }
    }

    /// What must hold of every cache, long after it was full: any number of laps later, with huge values wherever nobody
    /// looks, restored from a file, or after tokens were taken back, the next logits are the same to the bit.
    fn holds_still(&self, gpu: &Gpu, model: &Arc<Model>) {
        let (fed, tokens) = (110, &self.sequence("long").tokens);
        let full = || {
            let mut session = session(model, streaming(4, 13, 7, KvType::F32));
            block_on(session.feed(&tokens[..fed])).unwrap();
            session
        };
        let next = |mut session: Session| {
            block_on(session.feed(&tokens[fed..fed + 3])).unwrap();
            let logits = block_on(session.logits()).unwrap();
            logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let expected = next(full());
        let mut later = full();
        later.fast_forward(1_000_000_007);
        assert_eq!(next(later), expected, "{}: laps later", self.name);

        let poisoned = full();
        let cache = poisoned.cache();
        for layer in 0..model.config.n_layer {
            let RingParams { sinks, window, slots } = cache.ring(layer);
            let [sinks, window, slots] = [sinks, window, slots].map(|n| n as usize);
            let place = |n: usize| if n < sinks { n } else { sinks + (n - sinks) % slots };
            // The first of the three tokens to come looks back the furthest; they write where they are themselves.
            let kept = if cache.forgets_sinks(layer) { 0 } else { sinks };
            let used = (0..kept).chain(fed + 1 - window..fed + 3).map(place);
            let used: Vec<usize> = used.collect();
            assert!(used.len() < sinks + slots, "nothing is left to be poisoned");
            for tensor in [cache.k(layer), cache.v(layer)] {
                let row = vec![1e30f32.to_bits(); tensor.shape[1]];
                let unused = (0..sinks + slots).filter(|index| !used.contains(index));
                unused.for_each(|index| tensor.write(gpu, index * row.len(), &row));
            }
        }
        assert_eq!(next(poisoned), expected, "{}: poison", self.name);
        // A state goes on from the last token; else from the last one that was kept.
        for lost in [false, true] {
            let poisoned = full();
            let cache = poisoned.cache();
            for layer in 0..model.config.n_layer {
                let Some(states) = cache.states(layer) else { continue };
                let [kept, words] = states.shape[..] else { panic!("states are rows") };
                let slots = cache.ring(layer).slots as usize;
                let step = slots / (kept - 1);
                let used = if lost { 1 + fed / step * step % slots / step } else { 0 };
                let row = vec![1e30f32.to_bits(); words];
                let unused = (0..kept).filter(|&index| index != used);
                unused.for_each(|index| states.write(gpu, index * words, &row));
            }
            assert_eq!(next(poisoned), expected, "{}: states, lost {lost}", self.name);
        }

        let saved = block_on(full().snapshot(None, "")).unwrap();
        let mut restored = session(model, saved.settings());
        restored.restore(&saved).unwrap();
        assert_eq!(next(restored), expected, "{}: restored", self.name);

        let mut back = full();
        block_on(back.feed(&tokens[fed + 20..fed + 25])).unwrap();
        block_on(back.rewind(5, tokens[fed - 1])).unwrap();
        assert_eq!(next(back), expected, "{}: taken back", self.name);
    }

    fn settings(model: &Model, policy: Policy, chunk: usize) -> CacheSettings {
        let window = model.config.n_ctx.min(400);
        let shape = CacheSettings::for_model(&model.config, policy);
        CacheSettings { kv: KvType::F32, chunk, window, ..shape }
    }
}

/// What a family is held to. While nothing is evicted, a stream is what every other engine computes.
fn holds(name: &'static str) {
    let (tiny, gpu) = (Tiny::of(name), Arc::new(gpu()));
    tiny.tokenizes();
    let model = tiny.model(&gpu, |_| ());
    let mut whole = session(&model, Tiny::settings(&model, Policy::Streaming, 64));
    for sequence in &tiny.golden.sequences {
        whole.reset();
        tiny.agrees(&mut whole, sequence);
    }
    let mut one = session(&model, Tiny::settings(&model, Policy::Dense, 1));
    tiny.agrees(&mut one, tiny.sequence("long"));
    tiny.streams(&model);
    tiny.holds_still(&gpu, &model);
    let step = step(&gpu, &tiny, streamed(&model));
    assert_eq!(step.dispatches, cost(name, model.config.n_layer), "{name}");
    assert_eq!(step.weight_bytes, model.step_bytes(), "{name}");
}

/// A session whose cache is one split of attention.
fn streamed(model: &Arc<Model>) -> Session {
    session(model, streaming(4, 12, 8, KvType::F32))
}

/// Dispatches of a token: of each layer while its cache is one split of attention, and besides: embedding, last norm where it
/// is not folded into the output, output, choice, and what few models have.
fn cost(name: &str, layers: usize) -> u64 {
    let [each, besides] = match name {
        "qwen2" | "phi3" | "smollm3" | "granite" | "stablelm" | "mistral3" | "gemma" => [5, 3],
        "qwen3" => [6, 3],
        // three convolutions of five, and attention of six
        "lfm2" => [5, 4],
        // three states of seven, and attention of eight
        "qwen35" => [7, 4],
        "falcon" | "phi2" | "gptneox" | "mpt" | "falcon40" | "starcoder2" => [5, 3],
        // The embedding's norm, and the one after it; learned positions, and the norm after them.
        "bloom" | "gpt2" => [5, 5],
        "mpt, clamped" => [6, 3],
        "olmo2" | "olmo3" | "exaone4" => [8, 3],
        "glm4" => [7, 4],
        "gemma2" => [7, 5],
        "gemma3" => [8, 4],
        "gemma4" => [8, 5],
        "gptoss" | "gptoss_mxfp4" | "mixtral" => [8, 3],
        "qwen3moe" => [9, 3],
        _ => panic!("what does {name} cost?"),
    };
    each * layers as u64 + besides
}

/// What a token costs now.
fn step(gpu: &Gpu, tiny: &Tiny, mut session: Session) -> Counts {
    let tokens = &tiny.sequence("long").tokens;
    block_on(session.feed(&tokens[..tokens.len().min(40)])).unwrap();
    let settings = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let mut generation = session.generate(settings, &[]).unwrap();
    // However slow this machine is just now.
    generation.submit_together(1);
    session.submit_within(Duration::from_secs(1 << 20));
    let mut next = || {
        block_on(generation.next(&mut session)).unwrap().unwrap();
        gpu.counters.snapshot()
    };
    let (_, before) = (next(), next());
    next() - before
}

/// A test for each, so that they run side by side.
macro_rules! families {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*
    };
}

families!(
    qwen2,
    qwen3,
    gptneox,
    mpt,
    falcon,
    falcon40,
    bloom,
    gemma,
    gemma2,
    gemma3,
    gemma4,
    phi3,
    smollm3,
    granite,
    stablelm,
    starcoder2,
    phi2,
    olmo2,
    olmo3,
    glm4,
    exaone4,
    qwen3moe,
    mixtral,
    mistral3,
    gptoss,
    gptoss_mxfp4,
    lfm2,
    qwen35
);

/// What other files of these families say, against the oracle that is told the same.
#[test]
fn other_files_stream_as_the_paper_does_too() {
    let gpu = Arc::new(gpu());
    let windows = |config: &mut Config, every: usize| {
        for (layer, kind) in config.layers.iter_mut().enumerate() {
            kind.window = (layer % every == 0).then_some(9);
        }
    };
    type Change<'a> = &'a dyn Fn(&mut Config);
    let change: [(&str, Change); 7] = [
        ("mpt", &|config| config.caps.qkv = Some(0.7)),
        ("mpt", &|config| config.positions = Positions::Alibi(16.0)),
        ("mpt", &|config| config.softmax = Softmax::OffByOne),
        ("qwen2", &|config| config.softmax = Softmax::OffByOne),
        ("gptneox", &|config| config.parallel = false),
        // Shorter than what the policy shows, in some layers and in all.
        ("qwen3", &|config| windows(config, 2)),
        ("phi3", &|config| windows(config, 1)),
    ];
    for (name, change) in change {
        let tiny = Tiny::of(name);
        tiny.streams(&tiny.model(&gpu, change));
    }
    let tiny = Tiny::of("mpt");
    let clamped = tiny.model(&gpu, |config| config.caps.qkv = Some(0.7));
    let step = step(&gpu, &tiny, streamed(&clamped));
    assert_eq!(step.dispatches, cost("mpt, clamped", clamped.config.n_layer));
}

/// A chunk reads the weights of an expert once for each tile of its tokens, and not once for each token.
#[test]
fn a_chunk_reads_the_weights_of_experts_once_for_many_tokens() {
    let (tiny, gpu) = (Tiny::of("qwen3moe"), Arc::new(gpu()));
    let tile = ExpertTiles::of(&gpu).tokens();
    // To two of the eight experts, as the model has it; to all of them.
    for (used, tiles) in [(2, GroupExperts::most_tiles([64, 2, 8], tile)), (8, 8 * 64 / tile)] {
        let model = tiny.model(&gpu, |config| config.experts.as_mut().unwrap().used = used);
        let mut session = session(&model, streaming(4, 70, 64, KvType::F32));
        session.submit_within(Duration::from_secs(1 << 20));
        let before = gpu.counters.snapshot();
        block_on(session.feed(&tiny.sequence("long").tokens[..64])).unwrap();
        let chunk = gpu.counters.snapshot() - before;
        let (_, gguf) = tiny.opened();
        let of_experts = gguf.tensors.iter().filter(|t| t.name.ends_with("_exps.weight"));
        let each = of_experts.map(|tensor| tensor.size).sum::<u64>() / 8;
        // Of other products of a chunk it is not noted what they read; the last token's logits are a product of one.
        let head = gguf.tensors.iter().find(|t| t.name == "output.weight").unwrap().size;
        assert!(tiles < 64 * used, "fewer tiles than tokens");
        assert_eq!(chunk.weight_bytes, tiles as u64 * each + head, "to {used}");
        // Of a layer: two norms, Q, K and V, their norms, their turning, attention, output, router, choice, groups, two
        // products, a sum; besides: embedding, last norm, logits.
        assert_eq!(chunk.dispatches, 13 * 2 + 3);
    }
}

/// Of all experts a token reads those that it goes to.
#[test]
fn a_token_reads_the_weights_of_its_experts_alone() {
    let gpu = Arc::new(gpu());
    for name in ["qwen3moe", "gptoss"] {
        let tiny = Tiny::of(name);
        let model = tiny.model(&gpu, |_| ());
        let step = step(&gpu, &tiny, streamed(&model));
        // By the file, whose matrices take as many bytes there.
        let (_, gguf) = tiny.opened();
        let Experts { count, used, .. } = model.config.experts.unwrap();
        let read = |tensor: &TensorInfo| match &*tensor.name {
            "token_embd.weight" => 0,
            name if name.ends_with("_exps.weight") => tensor.size * used as u64 / count as u64,
            _ => tensor.size,
        };
        let matrices = gguf.tensors.iter().filter(|tensor| tensor.name.ends_with(".weight"));
        let matrices = matrices.filter(|tensor| tensor.dims.len() > 1);
        let expected: u64 = matrices.map(read).sum();
        let off = step.weight_bytes.abs_diff(expected);
        assert!(off < expected / 50, "{name}: {} for {expected}", step.weight_bytes);
    }
}

#[test]
fn gpt2_has_no_positions_to_stream_with() {
    let (tiny, gpu) = (Tiny::of("gpt2"), Arc::new(gpu()));
    tiny.tokenizes();
    let model = tiny.model(&gpu, |_| ());
    for chunk in [64, 1] {
        let settings = Tiny::settings(&model, Policy::Dense, chunk);
        tiny.agrees(&mut session(&model, settings), tiny.sequence("long"));
    }
    let settings = CacheSettings { window: 64, ..Tiny::settings(&model, Policy::Dense, 8) };
    let step = step(&gpu, &tiny, session(&model, settings));
    assert_eq!(step.dispatches, cost("gpt2", model.config.n_layer));
    for policy in [Policy::Streaming, Policy::Window, Policy::HalfDiscard] {
        let settings = Tiny::settings(&model, policy, 1);
        let error = block_on(Session::new(model.clone(), settings)).err().unwrap().to_string();
        assert!(
            error.contains("256 positions") && error.contains("dense and recompute"),
            "{error}"
        );
    }
    let settings = CacheSettings { window: 257, ..Tiny::settings(&model, Policy::Dense, 1) };
    let error = block_on(Session::new(model.clone(), settings)).err().unwrap().to_string();
    assert!(error.contains("beyond 256"), "{error}");
}
