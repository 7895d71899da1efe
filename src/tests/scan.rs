//! A scan for sinks against the oracle, and questions to a stream.
use super::support::gpu;
use super::tiny::{Tiny, session, streaming, text};
use crate::eval::records::{ANSWER_ROOM, Plan, Question, Records, stream};
use crate::eval::sinks::{FIRST, SinkScan};
use crate::format::{BytesSource, Gguf};
use crate::model::{CacheSettings, KvType, RopeLayout};
use crate::text::{Tokenizer, Vocab};
use pollster::block_on;
use std::sync::Arc;

#[test]
fn a_scan_sees_the_shares_of_the_oracle() {
    let gpu = Arc::new(gpu());
    let neox = RopeLayout::Neox;
    let other = Tiny { layout: neox, n_head_kv: 1, bias: true, seed: 2, ..Tiny::default() };
    for (tiny, kv, tolerance) in [(Tiny::default(), KvType::F32, 1e-5), (other, KvType::F16, 2e-3)]
    {
        let model = tiny.model(&gpu);
        let mut scan = block_on(SinkScan::new(model, 90, kv)).unwrap();
        assert!(scan.seen().is_none());
        let (layers, heads) = (tiny.n_layer, tiny.n_head);
        let mut sums = vec![vec![[0.0; FIRST]; heads]; layers];
        let (mut queries, mut fair) = (0, 0.0);
        // two stretches, the first longer than a pass
        for (stretch, from) in [(text(3, 90), 40), (text(4, 33), 20)] {
            scan.begin();
            for part in stretch.chunks(scan.pass()) {
                block_on(scan.feed(part, from)).unwrap();
            }
            let mut oracle = tiny.oracle(0, stretch.len());
            for (n, &token) in stretch.iter().enumerate() {
                oracle.step(token);
                if n < from {
                    continue;
                }
                queries += 1;
                fair += 1.0 / (n + 1) as f64;
                for (sums, shares) in
                    sums.iter_mut().flatten().zip(oracle.shares().iter().flatten())
                {
                    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                    sums.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
                }
            }
        }
        let seen = block_on(async { scan.seen() }).unwrap();
        assert_eq!(seen.queries, queries);
        assert!((seen.fair - fair / queries as f64).abs() < 1e-12);
        for (layer, head) in (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))) {
            for (j, sum) in sums[layer][head].iter().enumerate() {
                let (found, expected) = (seen.shares[layer][head][j], sum / queries as f64);
                let what = format!("{kv:?} layer {layer} head {head} token {j}");
                assert!((found - expected).abs() < tolerance, "{what}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn a_scan_refuses_what_cannot_be() {
    let model = Tiny::default().model(&Arc::new(gpu()));
    let error = |tokens| block_on(SinkScan::new(model.clone(), tokens, KvType::F32)).err().unwrap();
    assert!(error(3).to_string().contains("16 to 4096"), "{}", error(3));
    error(5000);
    let mut scan = block_on(SinkScan::new(model.clone(), 20, KvType::F32)).unwrap();
    block_on(scan.feed(&[1; 20], 0)).unwrap();
    assert!(block_on(scan.feed(&[1], 0)).is_err(), "the stretch is over");
    scan.begin();
    assert!(block_on(scan.feed(&[320], 0)).is_err(), "no such token");
}

/// A record streamed through a window of so many tokens.
fn ask(window: usize, distance: usize, chunk: usize) -> (Vec<Question>, Vec<f32>) {
    let tiny = Tiny::default();
    let model = tiny.model(&Arc::new(gpu()));
    let source = BytesSource::new("tiny.gguf", tiny.file());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf).unwrap()).unwrap();
    let settings = streaming(4, window, chunk, KvType::F32);
    let ring = Some(window + chunk - 1 + ANSWER_ROOM);
    let mut session = session(&model, CacheSettings { ring, ..settings });
    let records = Records::new(1, 9);
    let plan = Plan { distance, every: 3, questions: 2 };
    let mut found = Vec::new();
    let told = |_, question| {
        found.extend(question);
        true
    };
    block_on(stream(&mut session, &tokenizer, &records, plan, told)).unwrap();
    (found, block_on(session.logits()).unwrap())
}

#[test]
fn questions_come_when_and_for_what_they_should_and_leave_no_trace() {
    let (asked, logits) = ask(600, 2, 16);
    let lines: Vec<_> = asked.iter().map(|q| q.line).collect();
    assert_eq!(lines, [0, 3], "after the third line and the sixth, two in all");
    assert!(asked.iter().all(|q| q.held && q.digits >= 1 && q.digits_right <= q.digits));
    let records = Records::new(1, 9);
    assert!(asked.iter().all(|q| q.expected == records.number(q.line)));
    // A window that the line has left: a line of this vocabulary is some 40 tokens.
    assert!(ask(60, 2, 16).0.iter().all(|q| !q.held && q.tokens > 60));

    // The stream as if no answer had been given but the true ones.
    let tiny = Tiny::default();
    let source = BytesSource::new("tiny.gguf", tiny.file());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf).unwrap()).unwrap();
    let mut ids = tokenizer.encode_first(Records::HEAD).unwrap();
    for line in 0..6 {
        ids.extend(tokenizer.encode(&records.line(line), false).unwrap());
        if let Some(back) = [(2, 0), (5, 3)].iter().find(|(at, _)| *at == line).map(|(_, b)| *b) {
            let both = records.question(back) + &records.answer(back);
            ids.extend(tokenizer.encode(&both, false).unwrap());
        }
    }
    let mut plain = session(&tiny.model(&Arc::new(gpu())), streaming(4, 600, 16, KvType::F32));
    block_on(plain.feed(&ids)).unwrap();
    let expected = block_on(plain.logits()).unwrap();
    super::support::assert_close("the logits after all", &logits, &expected, 1e-3, 0.0);
}
