//! The sessions of one model in a browser: as many streams as were asked for at its load, which share their passes where the
//! model can.
use brooklet::model::{CacheSettings, Model};
use brooklet::session::Session;
use brooklet::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Streams over one model.
pub(crate) struct Pool {
    pub(crate) model: Arc<Model>,
    /// How many there may be, and are.
    most: usize,
    taken: Cell<usize>,
    /// Sessions that nobody has, each one of several that share passes.
    free: RefCell<Vec<Session>>,
}

impl Pool {
    /// None yet, and so many at most.
    pub(crate) fn new(model: Arc<Model>, most: usize) -> Self {
        Self { model, most, taken: Cell::new(0), free: RefCell::default() }
    }

    /// Counts a stream more; an error where there are as many as there may be.
    pub(crate) fn enter(&self) -> Result<()> {
        if self.taken.get() == self.most {
            let streams =
                if self.most == 1 { "1 stream" } else { &format!("{} streams", self.most) };
            return Err(Error::Usage(format!(
                "the engine was loaded for {streams} at once, and there are no more: unload one, or load the model with \
                 a larger option streams"
            )));
        }
        self.taken.set(self.taken.get() + 1);
        Ok(())
    }

    /// A stream less, and the session that it had.
    pub(crate) fn leave(&self, session: Option<Session>) {
        self.taken.set(self.taken.get() - 1);
        if let Some(session) = session {
            self.give_back(session);
        }
    }

    /// A session with such a cache.
    pub(crate) async fn session(&self, settings: CacheSettings) -> Result<Session> {
        if self.most == 1 {
            return Session::new(self.model.clone(), settings).await;
        }
        let found = {
            let mut free = self.free.borrow_mut();
            let of_these = |session: &Session| session.cache().settings() == settings;
            free.iter().position(of_these).map(|at| free.swap_remove(at))
        };
        if let Some(session) = found {
            return Ok(session);
        }
        match Session::several(self.model.clone(), settings, self.most).await {
            Ok(mut made) => {
                let first = made.swap_remove(0);
                self.free.borrow_mut().extend(made);
                Ok(first)
            }
            // It goes by turns with the others, then.
            Err(Error::Unsupported(_)) => Session::new(self.model.clone(), settings).await,
            Err(error) => Err(error),
        }
    }

    /// Keeps a session for the next who asks for such a cache, as long as another of its kind is in use.
    pub(crate) fn give_back(&self, mut session: Session) {
        if !session.shares_passes() {
            return;
        }
        session.reset();
        let settings = session.cache().settings();
        let mut free = self.free.borrow_mut();
        free.push(session);
        let of_these = |session: &Session| session.cache().settings() == settings;
        if free.iter().filter(|session| of_these(session)).count() == self.most {
            free.retain(|session| !of_these(session));
        }
    }
}
