//! Who hears of what goes wrong: whoever caused it, and of a lost device everyone.
use super::support::dropped_after;
use super::tiny::{Tiny, session, streaming, text};
use crate::gpu::{AdapterChoice, Gpu};
use crate::model::KvType::{F16, F32};
use crate::session::Session;
use crate::text::SamplerSettings;
use crate::{Error, Result};
use pollster::block_on;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

fn device() -> Gpu {
    block_on(Gpu::open(AdapterChoice::Best)).unwrap()
}

/// The logits after a text, from a stream that starts anew.
fn logits(session: &mut Session) -> Result<Vec<f32>> {
    session.reset();
    block_on(async {
        session.feed(&text(3, 20)).await?;
        session.logits().await
    })
}

#[test]
fn a_session_without_room_is_told_and_the_others_go_on() {
    let mut gpu = device();
    // As if a binding could span anything, so that the driver is asked for it.
    gpu.tier.max_binding = u64::MAX;
    gpu.tier.max_buffer = u64::MAX;
    let gpu = Arc::new(gpu);
    let model = Tiny { head_dim: 64, rope_dim: 64, ..Tiny::default() }.model(&gpu);
    let mut sound = session(&model, streaming(4, 12, 4, F32));
    sound.submit_within(Duration::ZERO); // a layer at a time: many waits
    let expected = logits(&mut sound).unwrap();
    let held = gpu.counters.held();
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        let asking = threads.spawn(|| {
            let ask = |_| {
                // Each tensor of its cache has more than 100 GiB.
                let settings = streaming(4, (1 << 28) - 64, 4, F32);
                block_on(Session::new(model.clone(), settings)).map(|_| ())
            };
            let answers: Vec<_> = (0..200).map(ask).collect();
            over.store(true, Relaxed);
            answers
        });
        let mut rounds = 0;
        while !over.load(Relaxed) || rounds < 10 {
            assert_eq!(logits(&mut sound).unwrap(), expected, "round {rounds}");
            rounds += 1;
        }
        for answer in asking.join().unwrap() {
            let error = answer.unwrap_err();
            let refused = matches!(error, Error::OutOfMemory { .. } | Error::Kernel { .. });
            assert!(refused, "{error}");
        }
    });
    assert_eq!(gpu.counters.held(), held, "nothing is left of those");
}

#[test]
fn a_device_that_is_lost_in_the_middle_is_told_to_all() {
    let gpu = Arc::new(device());
    let model = Tiny::default().model(&gpu);
    // Passes of four tokens, of one, and a layer of four at a time.
    let [four, one, mut parted] =
        [4, 1, 4].map(|chunk| session(&model, streaming(4, 12, chunk, F16)));
    parted.submit_within(Duration::ZERO);
    let sessions = [four, one, parted];
    let under_way = Barrier::new(4);
    let errors = thread::scope(|threads| {
        let feeding = sessions.map(|mut session| {
            let under_way = &under_way;
            threads.spawn(move || {
                block_on(session.feed(&text(4, 40))).unwrap();
                under_way.wait();
                let error = loop {
                    if let Err(error) = block_on(session.feed(&text(4, 400))) {
                        break error;
                    }
                };
                (error, session)
            })
        });
        under_way.wait();
        gpu.destroy();
        feeding.map(|thread| thread.join().unwrap())
    });
    for (error, mut session) in errors {
        assert!(matches!(error, Error::DeviceLost(_)), "{error}");
        // It stays lost for whatever is asked next, however often.
        for _ in 0..3 {
            assert!(matches!(block_on(session.feed(&[1])), Err(Error::DeviceLost(_))));
            assert!(matches!(block_on(session.logits()), Err(Error::DeviceLost(_))));
        }
        let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
        let next = session
            .generate(greedy, &[])
            .and_then(|mut generation| block_on(generation.next(&mut session)));
        assert!(matches!(next, Err(Error::DeviceLost(_))), "{next:?}");
    }
    let anew = block_on(Session::new(model.clone(), streaming(4, 12, 4, F16)));
    assert!(matches!(anew.map(|_| ()), Err(Error::DeviceLost(_))));
}

#[test]
fn reads_that_are_dropped_do_no_harm() {
    let gpu = Arc::new(device());
    let model = Tiny::default().model(&gpu);
    let mut stream = session(&model, streaming(4, 12, 4, F32));
    let expected = logits(&mut stream).unwrap();
    let context = &mut Context::from_waker(Waker::noop());
    for _ in 0..10 {
        let _ = pin!(stream.logits()).poll(context);
    }
    assert_eq!(block_on(stream.logits()).unwrap(), expected);
    assert_eq!(logits(&mut stream).unwrap(), expected);
}

#[test]
fn ten_futures_that_are_dropped_at_any_wait_do_no_harm_to_their_stream_nor_to_another() {
    let gpu = Arc::new(device());
    let model = Tiny::default().model(&gpu);
    let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let (first, prompt) = (text(3, 20), text(5, 40));
    let [mut stream, mut other] = [4, 5].map(|chunk| {
        let mut stream = session(&model, streaming(4, 12, chunk, F32));
        stream.submit_within(Duration::ZERO);
        stream
    });
    let expected = [&mut stream, &mut other].map(|stream| logits(stream).unwrap());
    for waits in 0..10 {
        stream.reset();
        block_on(stream.feed(&first)).unwrap();
        assert!(dropped_after(waits, stream.feed(&prompt)).is_none(), "it waits {waits} times");
        // The other goes on, and hears nothing of it.
        assert_eq!(logits(&mut other).unwrap(), expected[1], "{waits}");
        let mut by = stream.generate(greedy.clone(), &[]).unwrap();
        assert!(dropped_after(0, by.next(&mut stream)).is_none());
        let token = block_on(by.next(&mut stream)).unwrap();
        assert!(token.is_some() && stream.position() >= 21);
        assert!(dropped_after(0, stream.logits()).is_none());
    }
    let after = [&mut stream, &mut other].map(|stream| logits(stream).unwrap());
    assert_eq!(after, expected);
    gpu.check().unwrap();
}
