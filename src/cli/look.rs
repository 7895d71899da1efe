//! The commands that look at things: devices, inspect, tokenize, logits.
use super::args::{DevicesArgs, InspectArgs, LogitsArgs, TokenizeArgs};
use super::model::{File, prompt_ids, read_text, text, warn};
use super::output::{Output, human};
use super::tuning;
use super::weights::Weights;
use brooklet::format::describe;
use brooklet::gpu::AdapterReport;
use brooklet::model::{Config, KvType};
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

/// What the keys and values of a token take, for each type that suits the model.
fn told_kv_bytes(config: &Config) -> String {
    let each = KvType::ALL.into_iter().filter_map(|kv| Some((kv, config.kv_bytes(kv)?)));
    let each = each.filter(|(_, bytes)| *bytes > 0);
    let each: Vec<_> = each.map(|(kv, bytes)| format!("{} {}", kv.name(), human(bytes))).collect();
    if each.is_empty() {
        String::new()
    } else {
        format!("\nkeys and values of a token: {}", each.join(", "))
    }
}

pub(crate) fn inspect(args: InspectArgs) -> Result<()> {
    let (_, gguf) = Weights::open(&args.file, None)?;
    warn(&gguf.warnings);
    let mut text = describe(&gguf);
    let (config, tokenizer) = match Vocab::from_gguf(&gguf).and_then(Tokenizer::new) {
        Ok(tokenizer) => {
            warn(tokenizer.warnings());
            (Config::for_tokens(&gguf, tokenizer.len()), None)
        }
        Err(error) => (Config::from_gguf(&gguf), Some(error)),
    };
    let kept = config.as_ref().map_or_else(|_| String::new(), told_kv_bytes);
    let verdict = match (config, tokenizer) {
        (Ok(config), None) => format!("brooklet runs this model, of the family {}", config.kinds()),
        (config, tokenizer) => {
            let obstacles = config.err().into_iter().chain(tokenizer);
            let obstacles: Vec<_> = obstacles.map(|error| error.to_string()).collect();
            format!("brooklet cannot run this model: {}", obstacles.join("; "))
        }
    };
    // Writing into a String does not fail.
    let _ = writeln!(text, "{kept}\n{verdict}");
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

/// The likeliest tokens after one of those that were fed.
#[derive(Serialize)]
struct After {
    position: usize,
    logits: Vec<(usize, f32)>,
}

pub(crate) fn logits(args: LogitsArgs) -> Result<()> {
    let given = args.ids.given();
    let file = File::opened(&args.model, given.is_some())?;
    let ids = match (given, text(&args.text)?) {
        (Some(ids), _) => ids,
        (None, Some(text)) => prompt_ids(&file.tokenizer, &text)?,
        (None, None) => {
            return Err(Error::Usage(
                "logits needs a text: -p TEXT, -f FILE, - for standard input, or token --ids"
                    .into(),
            ));
        }
    };
    let mut positions = args.positions.clone();
    if let Some(position) = positions.iter().find(|&&position| position >= ids.len()) {
        let last = ids.len() - 1;
        return Err(Error::Usage(format!(
            "--positions: there is no token {position}; 0 to {last} are there"
        )));
    }
    if positions.is_empty() {
        positions.push(ids.len() - 1);
    }
    positions.sort_unstable();
    positions.dedup();
    let mut config = file.config()?;
    args.experiment.change(&mut config);
    let wish = args.adapter.choice().with(args.cache.kernels());
    let model = Arc::new(file.load_as(config, wish, false)?);
    let settings = args.cache.shape.suited(args.cache.settings(&model.config), &model.gpu);
    let found = block_on(async {
        let mut session = Session::new(model, settings).await?;
        let (mut fed, mut found) = (0, Vec::with_capacity(positions.len()));
        for &position in &positions {
            session.feed(&ids[fed..=position]).await?;
            fed = position + 1;
            let logits = session.logits().await?;
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            order.truncate(args.top);
            let logits = order.into_iter().map(|id| (id, logits[id])).collect();
            found.push(After { position, logits });
        }
        Ok::<_, Error>(found)
    })?;
    let mut output = Output::new();
    if args.json && args.positions.is_empty() {
        return found.iter().try_for_each(|after| output.json(&after.logits));
    } else if args.json {
        return output.json(&found);
    }
    let mut lines = String::new();
    for After { position, logits } in found {
        if !args.positions.is_empty() {
            let _ = writeln!(lines, "after token {position}:");
        }
        for (id, logit) in logits {
            let piece = file.tokenizer.piece(id as u32);
            let _ = writeln!(lines, "{id:>8} {logit:>10.4} {piece:?}");
        }
    }
    output.text(&lines)
}
