//! Every family against transformers in float64, on a tiny model of its own (tests/fixtures/families/ORIGIN.md), and its stream
//! against the paper's.
use super::support::{assert_close, gpu};
use super::tiny::{session, streaming};
use crate::format::{FileSource, Gguf};
use crate::gpu::Gpu;
use crate::model::{CacheSettings, Config, KvType, Model, Policy};
use crate::reference::Oracle;
use crate::text::{SamplerSettings, Tokenizer, Vocab};
use pollster::block_on;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Every model of the folder, with its figures.
fn families() -> Vec<(String, PathBuf, Golden)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let models = files.filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    let mut all: Vec<_> = models
        .map(|path| {
            let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, path, serde_json::from_str(&text).unwrap())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn opened(path: &Path) -> (FileSource, Gguf) {
    let source = FileSource::open(path).unwrap();
    let gguf = block_on(Gguf::read(&source)).unwrap();
    (source, gguf)
}

fn model(gpu: &Arc<Gpu>, path: &Path) -> Arc<Model> {
    let (source, gguf) = opened(path);
    Arc::new(block_on(Model::load(gpu.clone(), &source, &gguf, &mut |_, _| ())).unwrap())
}

#[test]
fn every_family_has_the_logits_and_tokens_of_transformers() {
    let gpu = Arc::new(gpu());
    for (family, path, golden) in families() {
        let model = model(&gpu, &path);
        for chunk in [1, 24] {
            let settings = CacheSettings {
                kv: KvType::F32,
                chunk,
                window: 400,
                ..CacheSettings::for_model(&model.config, Policy::Dense)
            };
            let mut session = session(&model, settings);
            for sequence in &golden.sequences {
                let Sequence { name, tokens, positions, fixed_ids, fixed, top8, greedy } = sequence;
                session.reset();
                let mut fed = 0;
                for (k, &position) in positions.iter().enumerate() {
                    block_on(session.feed(&tokens[fed..=position])).unwrap();
                    fed = position + 1;
                    let logits = block_on(session.logits()).unwrap();
                    let of =
                        |ids: &[u32]| ids.iter().map(|&id| logits[id as usize]).collect::<Vec<_>>();
                    let what =
                        format!("{family}, {name}, chunks of {chunk}, after token {position}");
                    assert_close(&what, &of(fixed_ids), &fixed[k], CLOSE, 0.0);
                    let (ids, highest): (Vec<_>, Vec<_>) = top8[k].iter().copied().unzip();
                    assert_close(&what, &of(&ids), &highest, CLOSE, 0.0);
                }
                assert_eq!(fed, tokens.len(), "the last position is the last token's");
                let settings = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
                let mut generation = session.generate(settings, &[]).unwrap();
                let next = || block_on(generation.next(&mut session)).unwrap().unwrap();
                let found: Vec<u32> = std::iter::repeat_with(next).take(greedy.len()).collect();
                assert_eq!(found, *greedy, "{family}, {name}, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn every_family_has_the_ids_of_its_tokenizer() {
    for (family, path, golden) in families() {
        let (_, gguf) = opened(&path);
        let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf).unwrap()).unwrap();
        assert!(!golden.tokenizer_checks.is_empty(), "{family}");
        for Check { text, ids } in &golden.tokenizer_checks {
            assert_eq!(tokenizer.encode(text, true).unwrap(), *ids, "{family}: {text:?}");
        }
    }
}

#[test]
fn every_family_streams_as_the_paper_does() {
    let gpu = Arc::new(gpu());
    for (family, path, golden) in families() {
        let model = model(&gpu, &path);
        let (source, gguf) = opened(&path);
        let tokens = &golden.sequences.iter().find(|s| s.name == "long").unwrap().tokens;
        for (sinks, window, chunk) in [(4, 13, 1), (1, 20, 7)] {
            let mut session = session(&model, streaming(sinks, window, chunk, KvType::F32));
            let config = Config::from_gguf(&gguf).unwrap();
            let oracle = Oracle::read(&source, &gguf, config, sinks, window);
            let mut oracle = block_on(oracle).unwrap();
            for (i, tokens) in tokens.chunks(chunk).enumerate() {
                let expected = tokens.iter().map(|&token| oracle.step(token)).last().unwrap();
                block_on(session.feed(tokens)).unwrap();
                let found = block_on(session.logits()).unwrap();
                let expected: Vec<f32> = expected.iter().map(|&logit| logit as f32).collect();
                let what = format!("{family}, {sinks} + {window}, chunk {i} of {chunk}");
                assert_close(&what, &found, &expected, CLOSE, 0.0);
            }
        }
    }
}
