//! A conversation as bytes: a saved stream, with where its messages lie in the note beside it.
use super::{Chat, Script, Sight, Turn};
use crate::model::Model;
use crate::session::{Session, Snapshot};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is written beside the stream.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    system: Option<String>,
    sight: Sight,
    turn: Option<Turn>,
    /// The front end's own: texts of messages.
    front: String,
}

impl Chat {
    /// The conversation as it stands, an answer ended where it is. `front` is the front end's own, given back by
    /// [`Chat::restored`].
    pub async fn save(&mut self, front: String) -> Result<Snapshot> {
        self.stop();
        let system = self.script.system().map(str::to_owned);
        let (sight, turn) = (self.sight.clone(), self.turn);
        let note = serde_json::to_string(&Note { system, sight, turn, front });
        let note =
            note.map_err(|e| Error::Io { path: "the conversation".into(), source: e.into() })?;
        self.session.snapshot(None, note).await
    }

    /// Goes on with a saved conversation. `script` makes a script for its system prompt. Gives what the front end had
    /// saved, too.
    pub async fn restored(
        model: Arc<Model>,
        snapshot: &Snapshot,
        script: impl FnOnce(Option<String>) -> Result<Script>,
    ) -> Result<(Self, String)> {
        let note: Note = serde_json::from_str(snapshot.note()).map_err(|_| {
            Error::Usage("the file holds a stream, not a conversation; go on with it by run".into())
        })?;
        let mut session = Session::new(model, snapshot.settings()).await?;
        session.restore(snapshot)?;
        session.resume(snapshot)?;
        let mut chat = Self::over(session, script(note.system)?);
        (chat.sight, chat.turn) = (note.sight, note.turn);
        Ok((chat, note.front))
    }
}
