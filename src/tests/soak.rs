//! What a soak compares, and what it makes of what it saw.
use super::tiny::{Tiny, streaming, text};
use crate::eval::soak::{Record, Report, Tail};
use crate::model::KvType;

#[test]
fn an_oracle_of_the_tail_is_the_oracle_of_the_whole() {
    for (layers, sinks, window) in [(1, 4, 6), (2, 4, 7), (3, 0, 5), (2, 1, 1)] {
        let tiny = Tiny { n_layer: layers, ..Tiny::default() };
        let cache = streaming(sinks, window, 1, KvType::F32);
        let (mut whole, mut anew) = (tiny.oracle(sinks, window), tiny.oracle(sinks, window));
        let mut tail = Tail::new(&cache, layers);
        for (t, token) in text(30, 60).into_iter().enumerate() {
            tail.push(token);
            let logits: Vec<f32> = whole.step(token).iter().map(|&l| l as f32).collect();
            let apart = tail.difference(&mut anew, &logits);
            assert!(apart < 1e-5, "{layers} layers, {sinks} + {window}, t = {t}: {apart}");
        }
    }
}

#[test]
fn a_shorter_tail_is_not_enough() {
    let (layers, sinks, window) = (2, 4, 7);
    let tiny = Tiny { n_layer: layers, ..Tiny::default() };
    let (mut whole, mut anew) = (tiny.oracle(sinks, window), tiny.oracle(sinks, window));
    // as if there were a layer less
    let mut tail = Tail::new(&streaming(sinks, window, 1, KvType::F32), layers - 1);
    let mut worst: f64 = 0.0;
    for token in text(30, 60) {
        tail.push(token);
        let logits: Vec<f32> = whole.step(token).iter().map(|&l| l as f32).collect();
        worst = worst.max(tail.difference(&mut anew, &logits));
    }
    assert!(worst > 1e-3, "{worst}");
    assert_eq!(tail.difference(&mut anew, &[f32::NAN]), f64::INFINITY);
}

/// A record a hundredth, of a run that keeps as it is.
fn flat() -> Vec<Record> {
    let record = |i: u64| Record {
        tokens: 10 * i,
        ms: 2.0 + 0.001 * (i % 3) as f64,
        host: Some((100 << 20) + (i % 2) * 4096),
        gpu: 1000,
        difference: 1e-6,
    };
    (1..=100).map(record).collect()
}

#[test]
fn what_keeps_as_it_is_passes_and_what_drifts_does_not() {
    let report = |records: &[Record]| Report::new(records, 1000, 1e-3);
    let good = report(&flat());
    assert_eq!(good.tenths.len(), 10);
    assert!(good.gpu_flat() && good.oracle_equal());
    assert_eq!((good.host_flat(), good.latency_flat()), (Some(true), Some(true)));

    let changed = |change: fn(usize, &mut Record)| {
        let mut records = flat();
        records.iter_mut().enumerate().for_each(|(i, record)| change(i, record));
        report(&records)
    };
    assert!(!changed(|i, record| record.gpu += u64::from(i == 50)).gpu_flat());
    // the first tenth may still grow
    let first = changed(|i, record| {
        record.host = record.host.map(|h| h - if i < 10 { 9 << 20 } else { 0 })
    });
    assert_eq!(first.host_flat(), Some(true));
    let later = changed(|i, record| record.host = record.host.map(|h| h + 20_000 * i as u64));
    assert_eq!(later.host_flat(), Some(false));
    let slower = changed(|i, record| record.ms *= 1.0 + 0.001 * i as f64);
    assert_eq!(slower.latency_flat(), Some(false));
    assert!(
        !changed(|i, record| record.difference += if i == 70 { 0.01 } else { 0.0 }).oracle_equal()
    );
}

#[test]
fn a_run_cut_short_says_what_is_not_known_yet() {
    let report = Report::new(&flat()[..15], 1000, 1e-3);
    assert_eq!((report.tenths.len(), report.latency_flat()), (2, None));
    let nothing = Report::new(&[], 1000, 1e-3);
    assert_eq!((nothing.host_flat(), nothing.gpu_flat()), (None, true));
}
