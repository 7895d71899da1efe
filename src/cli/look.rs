//! The commands that look at things: devices, inspect, tokenize, logits.
use super::args::{DevicesArgs, InspectArgs, LogitsArgs, TokenizeArgs};
use super::model::{File, prompt_ids, read_text, text, warn};
use super::output::{Output, human};
use super::tuning;
use brooklet::format::{Shards, describe};
use brooklet::gpu::AdapterReport;
use brooklet::model::Config;
use brooklet::ops::Variant;
use brooklet::session::Session;
use brooklet::text::{Tokenizer, Vocab};
use brooklet::{Error, Result, gpu};
use pollster::block_on;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// An adapter, and what was measured with it by type of weights.
#[derive(Serialize)]
struct Device<'a> {
    #[serde(flatten)]
    adapter: &'a AdapterReport,
    tuned: BTreeMap<&'a str, Variant>,
}

pub(crate) fn devices(args: DevicesArgs) -> Result<()> {
    let (adapters, kept, mut output) = (block_on(gpu::adapters()), tuning::kept(), Output::new());
    if adapters.is_empty() && !args.json {
        output.text("no adapter: install a Vulkan driver (mesa-vulkan-drivers will do)\n")?;
    }
    for adapter in &adapters {
        let AdapterReport { name, driver, backend, .. } = adapter;
        let tuned = kept.of(name, driver, backend);
        if args.json {
            let tuned: BTreeMap<_, _> = tuned.collect();
            output.json(&Device { adapter, tuned })?;
            continue;
        }
        let (tier, yes) = (&adapter.tier, |on| if on { "yes" } else { "no" });
        let [least, most] = tier.subgroup_size;
        let size = if least == most { format!("{least}") } else { format!("{least} to {most}") };
        let subgroups = if tier.subgroups { format!("yes, of {size}") } else { "no".to_owned() };
        output.text(&format!(
            "{} {}\n    {} on {}; {}\n    shader-f16 {}; subgroups {subgroups}; timestamps {}; \
             bindings to {}, buffers to {}\n",
            adapter.index,
            adapter.name,
            adapter.kind,
            adapter.backend,
            adapter.driver,
            yes(tier.f16),
            yes(tier.timestamps),
            human(tier.max_binding),
            human(tier.max_buffer),
        ))?;
        for (dtype, variant) in tuned {
            output.text(&format!("    fastest with {dtype}, as measured: {variant}\n"))?;
        }
    }
    Ok(())
}

pub(crate) fn inspect(args: InspectArgs) -> Result<()> {
    let (_, gguf) = block_on(Shards::open(&args.file))?;
    warn(&gguf.warnings);
    let mut text = describe(&gguf);
    let obstacles = match Vocab::from_gguf(&gguf).and_then(Tokenizer::new) {
        Ok(tokenizer) => {
            warn(tokenizer.warnings());
            vec![Config::for_tokens(&gguf, tokenizer.len()).err()]
        }
        Err(error) => vec![Config::from_gguf(&gguf).err(), Some(error)],
    };
    let obstacles: Vec<_> = obstacles.into_iter().flatten().map(|e| e.to_string()).collect();
    let verdict = match obstacles.is_empty() {
        true => "brooklet runs this model".to_owned(),
        false => format!("brooklet cannot run this model: {}", obstacles.join("; ")),
    };
    // Writing into a String does not fail.
    let _ = writeln!(text, "\n{verdict}");
    Output::new().text(&text)
}

pub(crate) fn tokenize(args: TokenizeArgs) -> Result<()> {
    let file = File::open(&args.model)?;
    let text = match &args.file {
        Some(path) => read_text(path)?,
        None => args.text.unwrap_or_default(),
    };
    let ids = file.tokenizer.encode(&text, true)?;
    warn(file.tokenizer.doubled(&ids).as_slice());
    if args.json {
        let pieces: Vec<_> = ids.iter().map(|&id| file.tokenizer.piece(id)).collect();
        return Output::new().json(&serde_json::json!({ "ids": ids, "pieces": pieces }));
    }
    let ids: Vec<_> = ids.iter().map(u32::to_string).collect();
    Output::new().text(&format!("{}\n", ids.join(" ")))
}

pub(crate) fn logits(args: LogitsArgs) -> Result<()> {
    let file = File::open(&args.model)?;
    let text = text(&args.text)?.ok_or_else(|| {
        Error::Usage("logits needs a text: -p TEXT, -f FILE, or - for standard input".into())
    })?;
    let ids = prompt_ids(&file.tokenizer, &text)?;
    let model = file.load(args.adapter.choice().with(args.cache.kernels()), false)?;
    let model = Arc::new(model);
    let settings = args.cache.shape.suited(args.cache.settings(&model.config), &model.gpu);
    let logits = block_on(async {
        let mut session = Session::new(model, settings).await?;
        session.feed(&ids).await?;
        session.logits().await
    })?;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(args.top);
    if args.json {
        let top: Vec<_> = order.iter().map(|&id| (id, logits[id])).collect();
        return Output::new().json(&top);
    }
    let mut lines = String::new();
    for id in order {
        let piece = file.tokenizer.piece(id as u32);
        let _ = writeln!(lines, "{id:>8} {:>10.4} {piece:?}", logits[id]);
    }
    Output::new().text(&lines)
}
