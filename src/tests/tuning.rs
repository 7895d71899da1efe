//! Which kernels are chosen, what is kept of it, and that the choice changes nothing but time.
use super::support::{assert_close, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::format::{BytesSource, DType, Gguf};
use crate::gpu::{AdapterChoice, Class, Gpu};
use crate::model::{Config, KernelSettings, KvType, LoadSettings, Model};
use crate::ops::{Choice, Origin, Variant};
use crate::tune::{Kept, Tune, choose_within};
use pollster::block_on;
use std::sync::Arc;
use std::time::Duration;

/// No test is to fail because its machine is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn head(tiny: &Tiny) -> (BytesSource, Gguf, Config) {
    let source = BytesSource::new("tiny.gguf", tiny.file());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    (source, gguf, config)
}

#[test]
fn every_variant_gives_the_oracle_s_logits() {
    let gpu = Arc::new(gpu());
    let tiny = Tiny::of_type(DType::Q4_1);
    let (source, gguf, config) = head(&tiny);
    let tokens = text(21, 30);
    let mut oracle = tiny.oracle(2, 9);
    let mut expected = Vec::new();
    tokens.iter().for_each(|&token| expected = oracle.step(token));
    let expected: Vec<f32> = expected.iter().map(|&logit| logit as f32).collect();
    let candidates = Variant::candidates(&gpu);
    assert_eq!(candidates[0], Variant::of(&gpu));
    // How a chunk goes through is a matter of its own.
    let other = Variant { columns: !candidates[0].columns, ..candidates[0] };
    let other = other.runs_on(&gpu).then_some(other);
    for variant in candidates.into_iter().chain(other) {
        let choice = Choice { variant, origin: Origin::Class };
        let settings = LoadSettings {
            variant: Some(choice),
            kernels: KernelSettings { kv: KvType::F32, ..Default::default() },
            ..LoadSettings::new(config.clone())
        };
        let mut unheard = |_, _| ();
        let model = Model::with_settings(gpu.clone(), &source, &gguf, settings, &mut unheard);
        let model = Arc::new(block_on(model).unwrap());
        let mut stream = session(&model, streaming(2, 9, 8, KvType::F32));
        // A prompt in chunks, then one by one.
        let (prompt, rest) = tokens.split_at(25);
        block_on(stream.feed(prompt)).unwrap();
        for &token in rest {
            block_on(stream.feed(&[token])).unwrap();
        }
        let found = block_on(stream.logits()).unwrap();
        assert_close(&variant.to_string(), &found, &expected, 1e-3, 1e-4);
    }
}

#[test]
fn an_answer_is_measured_once_and_kept() {
    let gpu = gpu();
    let (_, gguf, config) = head(&Tiny::of_type(DType::Q4_0));
    let ask = |tune, kept: &mut Kept| {
        block_on(choose_within(&gpu, &gguf, &config, tune, kept, PATIENCE)).unwrap()
    };
    let mut kept = Kept::default();
    let class = Variant::of(&gpu);
    let off = ask(Tune::Off, &mut kept);
    assert_eq!((off.variant, off.origin), (class, Origin::Class));
    assert_eq!(kept, Kept::default());

    let measured = ask(Tune::On, &mut kept);
    assert_eq!(measured.origin, Origin::Measured);
    assert!(measured.variant.runs_on(&gpu));
    let here: Vec<_> = kept.of(&gpu.name, &gpu.driver, &gpu.backend).collect();
    assert_eq!(here, [("Q4_0", measured.variant)]);
    assert_eq!(kept.of(&gpu.name, "another driver", &gpu.backend).count(), 0);

    // As the next start reads it.
    let mut again = Kept::parse(&kept.text());
    assert_eq!(again, kept);
    let known = ask(Tune::On, &mut again);
    assert_eq!((known.variant, known.origin), (measured.variant, Origin::Kept));
    assert_eq!(ask(Tune::Again, &mut again).origin, Origin::Measured);
    assert_eq!(ask(Tune::Off, &mut again).origin, Origin::Class);
}

#[test]
fn nothing_is_kept_when_time_runs_out() {
    let gpu = gpu();
    let (_, gguf, config) = head(&Tiny::of_type(DType::Q4_0));
    let mut kept = Kept::default();
    let choice = choose_within(&gpu, &gguf, &config, Tune::Again, &mut kept, Duration::ZERO);
    let choice = block_on(choice).unwrap();
    assert_eq!((choice.variant, choice.origin), (Variant::of(&gpu), Origin::Class));
    assert_eq!(kept, Kept::default());
    // An answer of an earlier load stays.
    let measure = |kept: &mut Kept, patience| {
        block_on(choose_within(&gpu, &gguf, &config, Tune::Again, kept, patience)).unwrap()
    };
    assert_eq!(measure(&mut kept, PATIENCE).origin, Origin::Measured);
    let before = kept.clone();
    assert_eq!(measure(&mut kept, Duration::ZERO).origin, Origin::Kept);
    assert_eq!(kept, before);
}

#[test]
fn what_was_kept_and_cannot_be_run_is_measured_anew() {
    let gpu = gpu();
    let (_, gguf, config) = head(&Tiny::of_type(DType::Q4_0));
    let mut kept = Kept::default();
    block_on(choose_within(&gpu, &gguf, &config, Tune::On, &mut kept, PATIENCE)).unwrap();
    let rows = with_impossible_rows(&kept.text());
    assert_ne!(rows, kept.text());
    let mut spoilt = Kept::parse(&rows);
    let choice =
        block_on(choose_within(&gpu, &gguf, &config, Tune::On, &mut spoilt, PATIENCE)).unwrap();
    assert_eq!(choice.origin, Origin::Measured);
    assert!(choice.variant.runs_on(&gpu));
    for damaged in ["", "{", "[]", "{\"a\":1}", "{\"a\":{\"rows\":-1}}", "\u{0}"] {
        assert_eq!(Kept::parse(damaged), Kept::default(), "{damaged:?}");
    }
}

/// The same text with an impossible number of rows.
fn with_impossible_rows(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start().starts_with("\"rows\"") {
        true => "\"rows\": 7,",
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn damaged_pipelines_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Tiny::default();
    let tokens = text(22, 9);
    let logits = || {
        let gpu = block_on(Gpu::open_with(AdapterChoice::Best, Class::Own, folder.path())).unwrap();
        let model = tiny.model(&Arc::new(gpu));
        let mut stream = session(&model, streaming(2, 9, 4, KvType::F16));
        block_on(stream.feed(&tokens)).unwrap();
        let logits = block_on(stream.logits()).unwrap();
        model.gpu.keep_pipelines();
        logits
    };
    let first = logits();
    let files: Vec<_> = folder.path().read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    // Backends without a cache of their own keep nothing.
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..], &flipped, &whole[..whole.len() / 2], &[]] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(logits(), first);
        }
    }
    // A folder that cannot be made, under a file.
    let nowhere = folder.path().join("file");
    std::fs::write(&nowhere, "").unwrap();
    let gpu =
        block_on(Gpu::open_with(AdapterChoice::Best, Class::Own, &nowhere.join("below"))).unwrap();
    tiny.model(&Arc::new(gpu)).gpu.keep_pipelines();
}
