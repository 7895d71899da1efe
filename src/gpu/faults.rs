//! What goes wrong on a device, told to whoever caused it; a lost device is told to all.
use super::Gpu;
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

/// What is known to have gone wrong with a device.
#[derive(Default)]
pub(super) struct Faults {
    /// Why the device was lost. It stays lost.
    lost: OnceLock<String>,
    /// Errors of calls that give none themselves, by the thread that called. Natively wgpu tells of them before the
    /// call returns. A browser tells later, on its one thread: only what nobody has to answer for comes here.
    of_calls: Mutex<HashMap<ThreadId, Error>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// The device is gone: everyone is to hear it.
    pub(super) fn lose(&self, why: String) {
        self.lost.get_or_init(|| {
            format!(
                "{why}; start again, and if it happens at the same place choose another adapter \
                 (brooklet devices)"
            )
        });
    }

    /// A call of this thread went wrong. The first error counts: others follow from it.
    pub(super) fn note(&self, error: Error) {
        locked(&self.of_calls).entry(std::thread::current().id()).or_insert(error);
    }

    fn check(&self) -> Result<()> {
        if let Some(why) = self.lost.get() {
            return Err(Error::DeviceLost(why.clone()));
        }
        locked(&self.of_calls).remove(&std::thread::current().id()).map_or(Ok(()), Err)
    }
}

/// wgpu's error as one of ours.
pub(super) fn error_of(error: wgpu::Error, what: &str, needed: u64) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory {
            what: what.to_owned(),
            needed,
            advice: "choose a smaller window or a smaller model".to_owned(),
        },
        other => Error::Kernel { kernel: "wgpu", detail: other.to_string() },
    }
}

/// Catches whatever goes wrong on this thread from its opening to its closing. Nothing may be awaited in between.
pub(super) struct Scopes {
    // Dropped in this order: the innermost first.
    internal: wgpu::ErrorScopeGuard,
    memory: wgpu::ErrorScopeGuard,
    validation: wgpu::ErrorScopeGuard,
}

impl Scopes {
    pub(super) fn open(device: &wgpu::Device) -> Self {
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        Self { internal, memory, validation }
    }

    /// What was caught: known at once natively, later in a browser.
    pub(super) fn close(self) -> impl Future<Output = Option<wgpu::Error>> + 'static {
        let [internal, memory, validation] =
            [self.internal, self.memory, self.validation].map(wgpu::ErrorScopeGuard::pop);
        async move {
            // A buffer that has no room is invalid too, and memory is the reason.
            let (memory, validation, internal) = (memory.await, validation.await, internal.await);
            memory.or(validation).or(internal)
        }
    }
}

/// What a device will say of something that was made.
#[cfg(not(target_arch = "wasm32"))]
type Verdict = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
#[cfg(target_arch = "wasm32")]
type Verdict = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Verdicts that somebody waits for.
type Awaited = Arc<Mutex<Vec<Verdict>>>;

thread_local! {
    /// Of the work that is being polled.
    static AWAITED: RefCell<Option<Awaited>> = const { RefCell::new(None) };
}

impl Gpu {
    /// What went wrong: the device was lost, or a call of this thread failed that could not say so. Asked after every
    /// wait. Errors of what others have made are not among it.
    pub fn check(&self) -> Result<()> {
        self.faults.check()
    }

    /// Makes something that needs so many bytes. What goes wrong is this call's error; in a browser, which tells
    /// later, that of the [`Gpu::answered`] around it.
    pub(super) fn make<T>(&self, what: &str, needed: u64, make: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        let scopes = Scopes::open(&self.device);
        let made = make();
        let (caught, what) = (scopes.close(), what.to_owned());
        let mut verdict: Verdict = Box::pin(async move {
            caught.await.map_or(Ok(()), |error| Err(error_of(error, &what, needed)))
        });
        match verdict.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => verdict?,
            Poll::Pending => self.leave(verdict),
        }
        // A device that went away meanwhile makes nothing, and says so by a callback alone.
        self.check()?;
        Ok(made)
    }

    /// Leaves a verdict to the work that is being polled.
    fn leave(&self, verdict: Verdict) {
        let verdict = AWAITED.with_borrow(|awaited| match awaited {
            Some(awaited) => {
                locked(awaited).push(verdict);
                None
            }
            None => Some(verdict),
        });
        #[cfg(target_arch = "wasm32")]
        if let Some(verdict) = verdict {
            // Nobody waits for it: whoever asks next hears it.
            let faults = self.faults.clone();
            wasm_bindgen_futures::spawn_local(async move {
                if let Err(error) = verdict.await {
                    faults.note(error);
                }
            });
        }
        #[cfg(not(target_arch = "wasm32"))]
        debug_assert!(verdict.is_none(), "natively every verdict is known at once");
    }

    /// Does `work`, and waits for what the device says of everything that was made in it: an error of that is an error
    /// of the work, and ends it. Whoever else works on the same device hears nothing of it.
    pub(crate) async fn answered<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let awaited = Awaited::default();
        let mut work = pin!(work);
        let mut done = None;
        poll_fn(|context| {
            if done.is_none() {
                let outer = AWAITED.replace(Some(awaited.clone()));
                let polled = work.as_mut().poll(context);
                AWAITED.set(outer);
                if let Poll::Ready(result) = polled {
                    done = Some(result);
                }
            }
            let mut verdicts = locked(&awaited);
            let mut failed = None;
            verdicts.retain_mut(|verdict| match verdict.as_mut().poll(context) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(error)) => {
                    failed.get_or_insert(error);
                    false
                }
                Poll::Pending => true,
            });
            match failed {
                Some(error) => Poll::Ready(Err(error)),
                None if verdicts.is_empty() => done.take().map_or(Poll::Pending, Poll::Ready),
                None => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps what is not there should fail right there"
)]
mod tests {
    use super::*;
    use crate::gpu::{AdapterChoice, Tensor};
    use pollster::block_on;
    use std::future::ready;
    use std::sync::mpsc::channel;

    fn device() -> Gpu {
        block_on(Gpu::open(AdapterChoice::Best)).unwrap()
    }

    fn no_room(what: &str) -> Error {
        Error::OutOfMemory { what: what.to_owned(), needed: 1, advice: "none".to_owned() }
    }

    /// As a browser does: the first answer is that there is none yet.
    fn later(result: Result<()>) -> Verdict {
        let mut result = Some(result);
        let mut asked = false;
        Box::pin(poll_fn(move |context| {
            if !std::mem::replace(&mut asked, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            result.take().map_or(Poll::Pending, Poll::Ready)
        }))
    }

    /// Work that makes something, waits, and is told of it later.
    async fn making(gpu: &Gpu, result: Result<()>) -> Result<u32> {
        gpu.leave(later(Ok(())));
        ready(()).await;
        gpu.leave(later(result));
        Ok(7)
    }

    #[test]
    fn what_is_told_later_reaches_the_work_that_made_it_alone() {
        let gpu = block_on(Gpu::open_noop()).unwrap();
        let both = futures_util::future::join(
            gpu.answered(making(&gpu, Err(no_room("mine")))),
            gpu.answered(making(&gpu, Ok(()))),
        );
        let (broken, sound) = block_on(both);
        assert!(matches!(broken, Err(Error::OutOfMemory { what, .. }) if what == "mine"));
        assert_eq!(sound.unwrap(), 7);
        gpu.check().unwrap();
        // Work that would wait for ever is ended by what it has made.
        let endless = async {
            gpu.leave(later(Err(no_room("endless"))));
            std::future::pending::<Result<()>>().await
        };
        assert!(matches!(block_on(gpu.answered(endless)), Err(Error::OutOfMemory { .. })));
        // And inner work is not answered for by outer work.
        let nested = gpu.answered(async {
            let inner = gpu.answered(making(&gpu, Err(no_room("inner")))).await;
            assert!(inner.is_err());
            Ok(8)
        });
        assert_eq!(block_on(nested).unwrap(), 8);
    }

    #[test]
    fn an_error_is_told_to_the_thread_that_caused_it_once() {
        let gpu = device();
        let tensor = Tensor::upload(&gpu, "t", &[4], &[1u32, 2, 3, 4]).unwrap();
        let words = |gpu: &Gpu| block_on(tensor.read::<u32>(gpu));
        std::thread::scope(|threads| {
            let (caused, is_caused) = channel();
            // Goes away with whoever holds it, so that a test that fails ends.
            let (go_on, goes_on) = channel::<()>();
            let (gpu, tensor) = (&gpu, &tensor);
            let thread = threads.spawn(move || {
                // A copy beyond the end of a buffer: wgpu refuses it, and the call gives nothing back.
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(&tensor.buffer, 8, &tensor.buffer, 0, Some(1 << 20));
                gpu.submit(encoder);
                caused.send(()).unwrap();
                let _ = goes_on.recv();
                (gpu.check(), gpu.check())
            });
            is_caused.recv().unwrap();
            gpu.check().unwrap();
            assert_eq!(words(gpu).unwrap(), [1, 2, 3, 4], "this thread has done nothing wrong");
            drop(go_on);
            let (first, second) = thread.join().unwrap();
            assert!(matches!(first, Err(Error::Kernel { kernel: "wgpu", .. })), "{first:?}");
            second.unwrap();
        });
    }

    #[test]
    fn a_buffer_that_is_refused_is_an_error_of_who_asked_for_it() {
        let mut gpu = device();
        // Beyond what the device was opened with, so that the driver is asked and refuses.
        gpu.tier.max_binding = u64::MAX;
        gpu.tier.max_buffer = u64::MAX;
        let kept = Tensor::upload(&gpu, "kept", &[2], &[5u32, 6]).unwrap();
        let held = gpu.counters.held();
        for _ in 0..3 {
            assert!(Tensor::zeros(&gpu, "far too large", &[1 << 60]).is_err());
            gpu.check().unwrap();
            assert_eq!(gpu.counters.held(), held);
            assert_eq!(block_on(kept.read::<u32>(&gpu)).unwrap(), [5, 6]);
        }
        // A device whose buffers may be of any size, and have no room.
        let gpu = block_on(Gpu::open_noop()).unwrap();
        let refused = Tensor::zeros(&gpu, "far too large", &[1 << 60]).map(|_| ()).unwrap_err();
        let named = matches!(&refused, Error::OutOfMemory { what, needed, .. }
            if what == "far too large" && *needed == 1 << 62);
        assert!(named, "{refused} ({:?})", gpu.tier);
        gpu.check().unwrap();
    }
}
