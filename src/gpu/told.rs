//! A result that comes once, from a callback or from another thread.
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// What has come, and who waits to hear it.
pub(super) struct Told<T>(Mutex<(Option<T>, Option<Waker>)>);

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(Mutex::new((None, None)))
    }
}

impl<T> Told<T> {
    fn lock(&self) -> MutexGuard<'_, (Option<T>, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was told, for the next time.
    pub(super) fn clear(&self) {
        *self.lock() = (None, None);
    }

    /// The first that is told counts.
    pub(super) fn tell(&self, result: T) {
        let mut state = self.lock();
        state.0.get_or_insert(result);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) async fn told(&self) -> T {
        poll_fn(|context| {
            let mut state = self.lock();
            match state.0.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    state.1 = Some(context.waker().clone());
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
    otherwise: Option<T>,
}

impl<T> Teller<T> {
    pub(super) fn new(told: &Arc<Told<T>>, otherwise: T) -> Self {
        Self { told: told.clone(), otherwise: Some(otherwise) }
    }

    pub(super) fn tell(mut self, result: T) {
        self.otherwise = None;
        self.told.tell(result);
    }
}

/// Nothing is told twice: whoever was told may have gone on, and be counted by what happens then.
impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        if let Some(otherwise) = self.otherwise.take() {
            self.told.tell(otherwise);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Teller, Told};
    use std::sync::Arc;

    #[test]
    fn a_teller_that_has_told_does_not_tell_again() {
        let told = Arc::new(Told::default());
        Teller::new(&told, "gone").tell("told");
        assert_eq!(pollster::block_on(told.told()), "told");
        assert!(told.lock().0.is_none());
        drop(Teller::new(&told, "gone"));
        assert_eq!(pollster::block_on(told.told()), "gone");
    }
}
