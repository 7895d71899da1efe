//! What a token costs the host: the default model on wgpu's noop backend, which computes nothing.
//! `cargo bench --bench host -- [MODEL.gguf]`
#![allow(clippy::print_stdout, reason = "a bench speaks on stdout")]
use brooklet::format::{FileSource, Gguf, default_model};
use brooklet::gpu::Gpu;
use brooklet::model::{CacheSettings, Model, Policy};
use brooklet::session::Session;
use brooklet::text::SamplerSettings;
use brooklet::{Error, Result};
use pollster::block_on;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of a run, and runs.
const TOKENS: u32 = 500;
const RUNS: usize = 5;

fn main() -> Result<()> {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let path = named.map(PathBuf::from).or_else(default_model).ok_or_else(|| {
        Error::Usage("name a model: cargo bench --bench host -- FILE.gguf".to_owned())
    })?;
    let source = FileSource::open(&path)?;
    let gguf = block_on(Gguf::read(&source))?;
    let gpu = Arc::new(block_on(Gpu::open_noop())?);
    let model = Arc::new(block_on(Model::load(gpu, &source, &gguf, &mut |_, _| ()))?);
    println!("{}: microseconds a token on the host, median of {RUNS}", path.display());
    for (what, temperature, together) in [
        ("greedy, 1 step a submission", 0.0, 1),
        ("greedy, 16 steps a submission", 0.0, 16),
        ("sampled (temperature 0.8, top-k 40)", 0.8, 1),
    ] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(block_on(run(&model, temperature, together))?);
        }
        runs.sort_by(f64::total_cmp);
        println!("{:8.1}  {what}", runs[RUNS / 2]);
    }
    Ok(())
}

async fn run(model: &Arc<Model>, temperature: f32, together: usize) -> Result<f64> {
    let settings = CacheSettings::for_model(&model.config, Policy::Streaming);
    let mut session = Session::new(model.clone(), settings).await?;
    session.feed(&[1, 2, 3]).await?;
    let sampling = SamplerSettings { temperature, ..SamplerSettings::default() };
    let mut generation = session.generate(sampling, &[])?;
    generation.submit_together(together);
    for _ in 0..32 {
        generation.next(&mut session).await?;
    }
    let start = Instant::now();
    for _ in 0..TOKENS {
        generation.next(&mut session).await?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(TOKENS))
}
