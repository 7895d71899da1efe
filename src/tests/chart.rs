//! Charts: no data is lost or covered, and what is drawn can be seen on light and on dark ground.
use crate::eval::chart::{Axis, Bars, Format, HeatMap, Line, Lines, bars, heat_map, lines, save};

fn ppl() -> Lines {
    let curve = |name: &str, level: f64, noisy: f64| {
        let noise = super::support::noise(level as u64, 32_768);
        let at = |(i, n): (usize, &f32)| {
            let x = (i + 1) as f64;
            (x, level * (1.0 + 3.0 / x.sqrt()) + noisy * f64::from(*n))
        };
        Line::new(name, noise.iter().enumerate().map(at).collect())
    };
    let mut spiked = curve("window 1024: breaks", 60.0, 0.3);
    spiked.points[20_000].1 = 5_000.0;
    Lines {
        title: "Perplexity so far of Persuasion, SmolLM2-135M <Q4_1> & friends".into(),
        x: Axis::linear("tokens"),
        y: Axis::log("perplexity"),
        series: vec![
            curve("streaming 4 + 1021", 35.0, 0.1),
            spiked,
            curve("dense", 33.0, 0.1),
            curve("recompute", 37.0, 0.2),
            curve("half-discard, keeps four", 39.0, 0.2),
            curve("streaming 0 + 1021", 41.0, 0.2),
            curve("streaming 1 + 1021", 43.0, 0.2),
            curve("streaming 8 + 1021", 45.0, 0.2),
        ],
    }
}

fn latency() -> Lines {
    let caches = [256.0, 512.0, 1024.0, 2048.0, 4096.0];
    let curve = |name: &str, ms: [f64; 5]| Line::marked(name, caches.into_iter().zip(ms).collect());
    Lines {
        title: "Time per token against the size of the cache".into(),
        x: Axis::log("cache, tokens").ticks(caches),
        y: Axis::log("milliseconds per token"),
        series: vec![
            curve("streaming", [31.0, 31.0, 35.0, 45.0, 65.0]),
            curve("recompute", [63.0, 103.0, 223.0, 523.0, 1411.0]),
        ],
    }
}

fn groups() -> Bars {
    Bars {
        title: "Milliseconds per token".into(),
        x: "cache, tokens".into(),
        y: Axis::linear("milliseconds"),
        groups: ["256", "512", "1024", "2048"].map(str::to_owned).to_vec(),
        series: vec![
            ("p50".into(), vec![31.0, 31.5, 35.0, 45.0]),
            ("p99".into(), vec![33.0, 34.0, f64::NAN, 47.0]),
            ("half-discard, p99".into(), vec![36.0, 38.0, 52.25, 90.0]),
        ],
    }
}

fn sinks() -> HeatMap {
    let row = |layer: usize| (0..9).map(|h| ((layer * h) % 17) as f64 / 17.0).collect();
    HeatMap {
        title: "Share of attention on the first four tokens".into(),
        x: "head".into(),
        y: "layer".into(),
        value: Axis::linear("share of attention").including([0.0, 1.0]),
        columns: (0..9).map(|h| h.to_string()).collect(),
        rows: (0..30).map(|l| (l.to_string(), row(l))).collect(),
    }
}

/// Every picture as (name, file); BROOKLET_PICTURES names a folder to write them to, to be looked at.
fn pictures() -> Vec<(&'static str, String)> {
    let made = vec![
        ("lines", lines(&ppl()).unwrap()),
        ("log", lines(&latency()).unwrap()),
        ("bars", bars(&groups()).unwrap()),
        ("heat", heat_map(&sinks()).unwrap()),
    ];
    if let Some(folder) = std::env::var_os("BROOKLET_PICTURES") {
        let folder = std::path::PathBuf::from(folder);
        for (name, svg) in &made {
            std::fs::write(folder.join(name).with_extension("svg"), svg).unwrap();
        }
    }
    made
}

/// Every (x, y) of a picture's polylines in the order of its series, legend aside.
fn curves(svg: &str) -> Vec<Vec<(i32, i32)>> {
    let points = |line: &str| -> Vec<(i32, i32)> {
        let text = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let pair =
            |p: &str| p.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
        text.split_whitespace().filter_map(pair).collect()
    };
    let drawn =
        svg.lines().filter(|l| l.starts_with("<polyline") && l.contains("stroke-width=\"2\""));
    drawn.map(points).collect()
}

#[test]
fn a_spike_is_not_lost_in_many_points_and_files_stay_small() {
    let svg = lines(&ppl()).unwrap();
    assert!(svg.len() < 400_000, "{} bytes", svg.len());
    let curves = curves(&svg);
    assert_eq!(curves.len(), 8);
    let top = |i: usize| curves[i].iter().map(|p| p.1).min().unwrap();
    assert!(top(1) + 150 < top(0), "{} is not far above {}", top(1), top(0));
}

#[test]
fn text_is_escaped_and_follows_the_colour_scheme() {
    for (name, svg) in pictures() {
        assert!(svg.contains("prefers-color-scheme:dark"), "{name}");
        assert!(!svg.contains("<Q4_1>") && !svg.contains("& friends"), "{name}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{name}");
    }
}

#[test]
fn every_colour_stands_out_from_both_grounds() {
    let bright = |hex: &str| {
        let part = |at: usize| {
            let v = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    };
    let contrast = |a: f64, b: f64| (a.max(b) + 0.05) / (a.min(b) + 0.05);
    let svg = lines(&ppl()).unwrap();
    let mut seen = 0;
    for line in svg.lines().filter(|line| line.starts_with("<polyline")) {
        if line.contains("stroke=\"#24292F\"") {
            continue; // ink, which the style sheet turns over
        }
        let hex = &line.split("stroke=\"#").nth(1).unwrap()[..6];
        let [light, dark] =
            ["ffffff", "0d1117"].map(|ground| contrast(bright(hex), bright(ground)));
        assert!(light >= 3.0 && dark >= 3.0, "#{hex}: {light:.2} on white, {dark:.2} on dark");
        seen += 1;
    }
    assert!(seen >= 16, "a curve and a legend entry each, found {seen}");
}

#[test]
fn higher_values_are_higher_and_what_is_not_a_number_is_left_out() {
    let svg = bars(&groups()).unwrap();
    let rects: Vec<&str> = svg.lines().filter(|l| l.starts_with("<rect")).collect();
    assert_eq!(rects.len(), 11 + 3, "one of twelve values is not a number; three are the legend");
    let height = |r: &str| -> i32 {
        r.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    };
    let tallest = rects.iter().map(|r| height(r)).max().unwrap();
    assert_eq!(height(rects.last().unwrap()), tallest, "the greatest value has the tallest bar");
    assert!(svg.contains(">\n52.25\n"), "the number of a bar is written at it");
    let cells = heat_map(&sinks()).unwrap().matches("<rect").count();
    assert!(cells > 270, "{cells}");
}

#[test]
fn round_ticks_are_within_the_axis_and_empty_charts_are_refused() {
    let svg = lines(&latency()).unwrap();
    for tick in ["256", "4096", "100", "1000"] {
        assert!(svg.contains(&format!(">\n{tick}\n")), "no tick at {tick}");
    }
    let empty = Lines { series: vec![Line::new("none", vec![(1.0, f64::NAN)])], ..latency() };
    let error = lines(&empty).unwrap_err().to_string();
    assert!(error.contains("no number to show"), "{error}");
    let one = Lines { series: vec![Line::marked("one", vec![(5.0, 5.0)])], ..latency() };
    lines(&one).unwrap();
    let zero =
        Lines { y: Axis::linear("y"), series: vec![Line::new("z", vec![(5.0, 0.0)])], ..latency() };
    lines(&zero).unwrap();
}

#[test]
fn a_chart_is_saved_as_its_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let svg = lines(&latency()).unwrap();
    let at = |name: &str| folder.path().join(name);
    save(&at("chart.svg"), &svg).unwrap();
    assert_eq!(std::fs::read_to_string(at("chart.svg")).unwrap(), svg);
    save(&at("chart.PNG"), &svg).unwrap();
    let png = resvg::tiny_skia::Pixmap::load_png(at("chart.PNG")).unwrap();
    assert_eq!(png.width(), 2 * 760);
    // Every curve's colour is there, ink, and white ground.
    let seen = |rgb: [u8; 3]| {
        let is = |p: &&_| {
            let p: &&resvg::tiny_skia::PremultipliedColorU8 = p;
            [p.red(), p.green(), p.blue()] == rgb
        };
        png.pixels().iter().filter(is).count()
    };
    for (rgb, least) in [([47, 129, 247], 500), ([217, 103, 22], 500), ([36, 41, 47], 500)] {
        assert!(seen(rgb) > least, "{rgb:?}: {} pixels", seen(rgb));
    }
    assert!(seen([255; 3]) > png.pixels().len() / 2);
    for bad in ["chart", "chart.jpg", "chart.svg.gz"] {
        let error = Format::of(std::path::Path::new(bad)).unwrap_err().to_string();
        assert!(error.contains(".svg or .png"), "{error}");
    }
}
