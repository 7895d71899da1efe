//! The streams of the server: what each holds, and which one a conversation goes on with.
use super::job::Asked;
use super::messages::Mark;
use brooklet::chat::{Chat, Script, beginning};
use brooklet::model::{CacheSettings, Model};
use brooklet::session::Session;
use brooklet::{Error, Result};
use pollster::block_on;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

/// As many streams over one model, which take their steps together where the model can do that. Their memory is reserved
/// here, and nowhere later.
pub(super) fn sessions(
    model: &Arc<Model>,
    settings: CacheSettings,
    n: usize,
) -> Result<Vec<Session>> {
    match block_on(Session::several(model.clone(), settings, n)) {
        Err(Error::Unsupported(_)) => {
            (0..n).map(|_| block_on(Session::new(model.clone(), settings))).collect()
        }
        sessions => sessions,
    }
}

/// A stream, and what it is known again by.
pub(super) struct Slot {
    id: usize,
    held: Option<Held>,
    pub(super) memory: Option<Memory>,
    /// When it was used last, by a clock that counts uses.
    used: u64,
}

/// A stream with a conversation in it, or without.
enum Held {
    Bare(Box<Session>),
    Chat(Box<Chat>),
}

/// Which messages a stream holds: marks, and after how many messages they are.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Before the last turn.
    pub(super) before: (Mark, usize),
    /// With its messages.
    pub(super) asked: (Mark, usize),
    /// With its answer.
    pub(super) answered: (Mark, usize),
    /// How the answer was asked for.
    pub(super) thinking: Option<bool>,
}

impl Memory {
    /// Of a stream whose last turn was taken back.
    pub(super) fn of(held: (Mark, usize)) -> Self {
        Self { before: held, asked: held, answered: held, thinking: None }
    }
}

/// How a stream goes on to a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It holds so many of the messages: the others follow.
    Follow(usize),
    /// It holds all of them, and an answer, which is made anew.
    Again,
    /// It holds so many of them when its last turn is taken back.
    Instead(usize),
    /// It is told all of them.
    Open,
}

impl Slot {
    /// The stream as it is.
    pub(super) fn session(&self) -> Option<&Session> {
        match self.held.as_ref()? {
            Held::Bare(session) => Some(session),
            Held::Chat(chat) => Some(chat.session()),
        }
    }

    fn take(&mut self) -> Result<Session> {
        match self.held.take() {
            Some(Held::Bare(session)) => Ok(*session),
            Some(Held::Chat(chat)) => Ok(chat.into_session()),
            None => Err(Error::Usage("a stream of the server was lost in an error before".into())),
        }
    }

    /// The stream without a conversation.
    pub(super) fn bare(&mut self) -> Result<&mut Session> {
        if !matches!(self.held, Some(Held::Bare(_))) {
            self.held = Some(Held::Bare(Box::new(self.take()?)));
        }
        match &mut self.held {
            Some(Held::Bare(session)) => Ok(session),
            _ => Err(Error::Usage("a stream of the server was lost".into())),
        }
    }

    /// The conversation in it; one of this script where there is none.
    pub(super) fn chat(&mut self, script: &Arc<Script>) -> Result<&mut Chat> {
        if !matches!(self.held, Some(Held::Chat(_))) {
            self.held = Some(Held::Chat(Box::new(Chat::over(self.take()?, script.clone()))));
        }
        match &mut self.held {
            Some(Held::Chat(chat)) => Ok(chat),
            _ => Err(Error::Usage("a stream of the server was lost".into())),
        }
    }

    /// The conversation in it, if there is one.
    pub(super) fn held_chat(&mut self) -> Option<&mut Chat> {
        match self.held.as_mut()? {
            Held::Chat(chat) => Some(chat),
            Held::Bare(_) => None,
        }
    }

    /// How it goes on to a conversation, and how many of its messages it holds already.
    fn plan(&self, Asked { marks, thinking: now, .. }: &Asked) -> Option<(usize, Plan)> {
        let Memory { before, asked, answered, thinking } = self.memory.as_ref()?;
        let holds = |(mark, count): &(Mark, usize)| marks.get(*count) == Some(mark);
        let all = marks.len() - 1;
        match () {
            () if holds(answered) && answered.1 < all => {
                Some((answered.1, Plan::Follow(answered.1)))
            }
            () if holds(asked) && asked.1 == all && thinking == now => Some((all, Plan::Again)),
            () if before.1 > 0 && holds(before) && before.1 < all => {
                Some((before.1, Plan::Instead(before.1)))
            }
            () => None,
        }
    }
}

/// All streams; those in use are not here.
pub(super) struct Slots {
    free: RefCell<Vec<Slot>>,
    uses: Cell<u64>,
    pub(super) views: Arc<Vec<Mutex<View>>>,
}

impl Slots {
    pub(super) fn new(sessions: Vec<Session>) -> Self {
        let views = (0..sessions.len()).map(|id| Mutex::new(View { id, ..View::default() }));
        let views = Arc::new(views.collect());
        let slot = |(id, session)| Slot {
            id,
            held: Some(Held::Bare(Box::new(session))),
            memory: None,
            used: 0,
        };
        let free = sessions.into_iter().enumerate().map(slot).collect();
        Self { free: RefCell::new(free), uses: Cell::new(0), views }
    }

    /// The stream that holds the most of a conversation, if one does.
    pub(super) fn known(&self, asked: &Asked) -> Option<(Used<'_>, Plan)> {
        let best = {
            let free = self.free.borrow();
            let plans =
                free.iter().enumerate().filter_map(|(at, slot)| Some((slot.plan(asked)?, at)));
            plans.max_by_key(|((count, _), _)| *count)
        };
        let ((_, plan), at) = best?;
        Some((self.at(at)?, plan))
    }

    /// The stream that begins with the most of these ids, where that is half of them; or else the one that was not used
    /// for the longest time.
    pub(super) fn any(&self, ids: &[u32]) -> Option<Used<'_>> {
        let at = {
            let free = self.free.borrow();
            let begins = |slot: &Slot| slot.session().map_or(0, |session| beginning(session, ids));
            let shared = free.iter().enumerate().map(|(at, slot)| (begins(slot), at)).max();
            let oldest = free.iter().enumerate().min_by_key(|(_, slot)| slot.used);
            match shared {
                Some((count, at)) if 0 < count && 2 * count >= ids.len() => Some(at),
                _ => oldest.map(|(at, _)| at),
            }
        };
        self.at(at?)
    }

    fn at(&self, at: usize) -> Option<Used<'_>> {
        let mut free = self.free.borrow_mut();
        let slot = (at < free.len()).then(|| free.swap_remove(at))?;
        let used = Used { slots: self, slot };
        used.look(|view| view.is_processing = true);
        Some(used)
    }
}

/// A stream in use. It is free again when this is dropped.
pub(super) struct Used<'a> {
    slots: &'a Slots,
    pub(super) slot: Slot,
}

impl Used<'_> {
    /// What is told of it.
    pub(super) fn view(&self) -> View {
        let view = self.slots.views.get(self.slot.id);
        view.map_or_else(View::default, |view| {
            view.lock().unwrap_or_else(PoisonError::into_inner).clone()
        })
    }

    /// Changes what is told of it.
    pub(super) fn look(&self, change: impl FnOnce(&mut View)) {
        if let Some(view) = self.slots.views.get(self.slot.id) {
            change(&mut view.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        self.look(|view| view.is_processing = false);
        let used = self.slots.uses.get() + 1;
        self.slots.uses.set(used);
        let Slot { id, held, memory, .. } = &mut self.slot;
        let slot = Slot { id: *id, held: held.take(), memory: memory.take(), used };
        self.slots.free.borrow_mut().push(slot);
    }
}

/// What is told of a stream.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct View {
    pub(super) id: usize,
    pub(super) is_processing: bool,
    /// Tokens of the stream so far.
    pub(super) position: u64,
    /// Those that cannot be seen any more.
    pub(super) evicted: u64,
    /// Messages that it holds, also those that are forgotten.
    pub(super) messages: u64,
    pub(super) forgotten_messages: u64,
}
