//! Seeded inputs, and closeness with a report worth reading.
use crate::gpu::{AdapterChoice, Gpu};
use std::cell::Cell;
use std::future::pending;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The same numbers in [-1, 1) for the same seed, on every machine.
pub(super) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Every |found - expected| <= atol + rtol * |expected|, or a panic naming the worst element. NaN is never close.
#[track_caller]
pub(super) fn assert_close(what: &str, found: &[f32], expected: &[f32], atol: f32, rtol: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let excess = |i: usize| {
        let over = (found[i] - expected[i]).abs() - atol - rtol * expected[i].abs();
        if over.is_nan() { f32::INFINITY } else { over }
    };
    let Some(worst) = (0..found.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b))) else {
        return;
    };
    let bad = (0..found.len()).filter(|&i| excess(i) > 0.0).count();
    assert!(
        bad == 0,
        "{what}: {bad} of {} differ, worst at [{worst}]: found {}, expected {}",
        found.len(),
        found[worst],
        expected[worst],
    );
}

#[test]
#[should_panic(expected = "a: 1 of 2 differ, worst at [1]: found NaN, expected 1")]
fn nan_is_never_close() {
    assert_close("a", &[1.0, f32::NAN], &[1.0, 1.0], 1.0, 1.0);
}

/// The device that `BROOKLET_ADAPTER` or nothing in particular names.
pub(super) fn gpu() -> Gpu {
    let gpu = pollster::block_on(Gpu::open(AdapterChoice::Best));
    gpu.expect("these tests need a GPU; Mesa's lavapipe will do")
}

thread_local! {
    /// Waits of a session until one that never comes to an end.
    static WAITS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a session awaits before it waits for the device. Natively such a wait blocks; in a browser a future can be
/// dropped there.
pub(crate) async fn pause() {
    match WAITS.get() {
        None => {}
        Some(0) => pending().await,
        Some(waits) => WAITS.set(Some(waits - 1)),
    }
}

/// Polls a future, and drops it at the wait after so many. Its result, if it came to one before that.
pub(super) fn dropped_after<T>(waits: usize, future: impl Future<Output = T>) -> Option<T> {
    WAITS.set(Some(waits));
    let result = pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    WAITS.set(None);
    match result {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
