//! What `benches/peers/peers.mjs` measured, as a chart.
use brooklet::eval::chart::{Axis, Bars, bars, save};
use brooklet::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::Path;

const KINDS: [&str; 3] = ["prefill", "decode", "late"];

/// The report of that script, as far as the chart shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    model: String,
    machine: String,
    tokens_per_second: Value,
    engines: Vec<Value>,
}

/// Not a number where the engine did not run.
fn median(engine: &Value, kind: &str) -> f64 {
    engine[kind]["median"].as_f64().unwrap_or(f64::NAN)
}

pub(crate) fn chart(json: &Path, svg: &Path) -> Result<()> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| Error::Io { path, source }
    };
    let text = fs::read_to_string(json).map_err(io(json))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|e| Error::Usage(format!("{}: not what peers.mjs writes: {e}", json.display())))?;
    let ran = report.engines.iter().filter(|engine| median(engine, "decode").is_finite());
    let series = ran.map(|engine| {
        let name = engine["name"].as_str().unwrap_or("unnamed").to_owned();
        (name, KINDS.map(|kind| median(engine, kind)).to_vec())
    });
    let drawn = bars(&Bars {
        title: format!("{}, batch 1, medians", report.model),
        x: report.machine,
        y: Axis::log("tokens per second"),
        groups: KINDS
            .iter()
            .map(|&kind| report.tokens_per_second[kind].as_str().unwrap_or(kind).to_owned())
            .collect(),
        series: series.collect(),
    })?;
    save(svg, &drawn)
}
