//! A result that comes once, from a callback or from another thread.
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// What has come, and who waits to hear it.
pub(super) struct Told<T>(Mutex<State<T>>);

struct State<T> {
    /// Counts what is waited for: who was to tell something earlier is not listened to any more.
    round: u64,
    result: Option<T>,
    waker: Option<Waker>,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(Mutex::new(State { round: 0, result: None, waker: None }))
    }
}

impl<T> Told<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was told, for the next time. Tellers of before are not listened to.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        *state = State { round: state.round + 1, result: None, waker: None };
    }

    /// Whether something was told, was not heard yet, and is such.
    pub(super) fn is(&self, such: impl FnOnce(&T) -> bool) -> bool {
        self.lock().result.as_ref().is_some_and(such)
    }

    /// The first that is told in a round counts.
    fn tell(&self, round: u64, result: T) {
        let mut state = self.lock();
        if state.round != round {
            return;
        }
        state.result.get_or_insert(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) async fn told(&self) -> T {
        poll_fn(|context| {
            let mut state = self.lock();
            match state.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The one who tells; should it go away before it did, it tells `otherwise`.
pub(super) struct Teller<T> {
    told: Arc<Told<T>>,
    round: u64,
    otherwise: Option<T>,
}

impl<T> Teller<T> {
    pub(super) fn new(told: &Arc<Told<T>>, otherwise: T) -> Self {
        let round = told.lock().round;
        Self { told: told.clone(), round, otherwise: Some(otherwise) }
    }

    pub(super) fn tell(mut self, result: T) {
        self.otherwise = None;
        self.told.tell(self.round, result);
    }
}

/// Nothing is told twice: whoever was told may have gone on, and be counted by what happens then.
impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        if let Some(otherwise) = self.otherwise.take() {
            self.told.tell(self.round, otherwise);
        }
    }
}

/// What `job` gives, done by a thread that has time. A job that panics gives the words it panicked with: without a
/// hand to catch it a panic there would end the process.
#[cfg(not(target_arch = "wasm32"))]
pub(super) async fn elsewhere<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let told = Arc::new(Told::default());
    let teller = Teller::new(&told, Err("the thread gave no answer".to_owned()));
    rayon::spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        teller.tell(done.map_err(|panic| {
            let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("a panic: {}", words.unwrap_or_else(|| "without words".to_owned()))
        }));
    });
    told.told().await
}

#[cfg(test)]
mod tests {
    use super::{Teller, Told, elsewhere};
    use pollster::block_on;
    use std::sync::Arc;

    #[test]
    fn a_job_that_panics_is_an_error_and_the_next_one_is_done() {
        let panicked = block_on(elsewhere(|| -> u32 { panic!("no {}", "such thing") }));
        assert_eq!(panicked, Err("a panic: no such thing".to_owned()));
        let panicked = block_on(elsewhere(|| -> u32 { std::panic::panic_any(3) }));
        assert_eq!(panicked, Err("a panic: without words".to_owned()));
        assert_eq!(block_on(elsewhere(|| 7)), Ok(7));
    }

    #[test]
    fn a_teller_that_has_told_does_not_tell_again() {
        let told = Arc::new(Told::default());
        Teller::new(&told, "gone").tell("told");
        assert_eq!(block_on(told.told()), "told");
        assert!(!told.is(|_| true));
        drop(Teller::new(&told, "gone"));
        assert_eq!(block_on(told.told()), "gone");
    }

    #[test]
    fn who_was_to_tell_before_is_not_listened_to() {
        let told = Arc::new(Told::default());
        let before = Teller::new(&told, "before");
        told.clear();
        let now = Teller::new(&told, "gone");
        drop(before);
        now.tell("now");
        assert!(told.is(|&told| told == "now"));
        assert_eq!(block_on(told.told()), "now");
    }
}
