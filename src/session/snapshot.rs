//! A stream as bytes: saved in the middle of a lap, it goes on as if it had never stopped.
//!
//! ```text
//! magic "BROOKLET", version u32, length of the head u32     little-endian, as everything here
//! head       JSON: what the stream is and where it stands
//! K, V       by layer, the rows that were written, as they lie on the device; of other layers their states
//! logits     f32, of the token fed last, where no token is waiting to be fed
//! SHA-256    of everything before it
//! ```
//!
//! Nothing but the file's own length decides what is allocated. `docs/snapshots.md` has the head field by field.
use super::{Generation, Session};
use crate::gpu::{Readback, Tensor};
use crate::model::{CacheSettings, Identity, KvType, Policy};
use crate::ops::ActivationType;
use crate::text::SamplerSettings;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"BROOKLET";
const VERSION: u32 = 2;
/// Where the head begins: after magic, version and length.
const START: usize = 16;
const CHECKSUM: usize = 32;

/// What the stream is and where it stands.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// The engine that wrote it, for people.
    engine: String,
    model: Identity,
    policy: Policy,
    sinks: usize,
    window: usize,
    chunk: usize,
    kv: KvType,
    activations: ActivationType,
    slots: usize,
    /// Rows of K and of V that follow for each layer, as far as it has so many, and the bytes of all of them.
    rows: usize,
    cache_bytes: usize,
    /// Logits that follow: V or none.
    logits: usize,
    /// Tokens fed, and the furthest the ring was written.
    position: u64,
    reach: u64,
    pending: Option<u32>,
    last: u32,
    sinks_kept: bool,
    recent: Vec<u32>,
    sampler: Option<Draw>,
    note: String,
}

/// How the next token is drawn.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draw {
    settings: SamplerSettings,
    banned: Vec<u32>,
    draws: u64,
    recent: Vec<u32>,
}

/// A saved stream: sound in itself. Whether it fits a model is asked by [`Session::restore`].
pub struct Snapshot {
    /// What errors call it.
    file: String,
    head: Head,
    bytes: Vec<u8>,
    /// Where K, V and logits lie.
    body: Range<usize>,
}

impl Snapshot {
    /// Whether a file that begins so says it is a saved stream.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Takes what [`as_bytes`](Self::as_bytes) gave. `file` is what errors call it.
    pub fn from_bytes(file: &str, bytes: Vec<u8>) -> Result<Self> {
        let wrong = |offset: usize, detail: String| Error::Format {
            file: file.to_owned(),
            offset: offset as u64,
            detail,
        };
        if !Self::begins(&bytes) {
            let found = bytes[..bytes.len().min(MAGIC.len())].escape_ascii();
            let detail = format!(
                "this is not a saved stream: it begins with \"{found}\", not \"BROOKLET\"; give a \
                 file that brooklet has saved"
            );
            return Err(wrong(0, detail));
        }
        let damaged = |offset, what: &str| {
            wrong(offset, format!("the saved stream is damaged: {what}; use another copy of it"))
        };
        let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM>() else {
            return Err(damaged(bytes.len(), "it ends before its checksum"));
        };
        let number = |at: usize| {
            let bytes = content.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let (Some(version), Some(len)) = (number(8), number(12)) else {
            return Err(damaged(content.len(), "it ends before its head"));
        };
        if Sha256::digest(content).as_slice() != checksum {
            return Err(damaged(
                content.len(),
                "its checksum does not match, so bytes are missing or changed",
            ));
        }
        if version != VERSION {
            let detail = format!(
                "a saved stream of version {version}, and this brooklet reads version {VERSION}; \
                 resume it with the brooklet that saved it"
            );
            return Err(wrong(8, detail));
        }
        let body = START.saturating_add(len as usize);
        let Some(head) = content.get(START..body) else {
            return Err(damaged(12, "its head is longer than the file"));
        };
        let head: Head = serde_json::from_slice(head)
            .map_err(|error| damaged(START, &format!("its head cannot be read ({error})")))?;
        let body = body..content.len();
        if Some(body.len()) != head.body_bytes() {
            return Err(damaged(
                body.start,
                "its keys and values have another size than its head says",
            ));
        }
        head.check().map_err(|what| damaged(START, &what))?;
        Ok(Self { file: file.to_owned(), head, body, bytes })
    }

    fn new(head: Head, body: &[u8]) -> Result<Self> {
        let json = serde_json::to_vec(&head)
            .map_err(|e| Error::Io { path: "the stream's state".into(), source: e.into() })?;
        let len = u32::try_from(json.len()).map_err(|_| {
            Error::Usage("the stream's state is longer than 4 GiB and cannot be saved".into())
        })?;
        let mut bytes = Vec::with_capacity(START + json.len() + body.len() + CHECKSUM);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(&json);
        bytes.extend(body);
        let checksum = Sha256::digest(&bytes);
        let body = START + json.len()..bytes.len();
        bytes.extend(checksum.as_slice());
        Ok(Self { file: "the saved stream".to_owned(), head, bytes, body })
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The cache that the stream had: what a session to restore it into is made with.
    pub fn settings(&self) -> CacheSettings {
        self.head.settings()
    }

    /// How the stream's tokens were chosen, and the ids that never were, if it was saved with a generation.
    pub fn sampling(&self) -> Option<(&SamplerSettings, &[u32])> {
        self.head.sampler.as_ref().map(|draw| (&draw.settings, &draw.banned[..]))
    }

    /// Tokens of the stream so far.
    pub fn position(&self) -> u64 {
        self.head.position + u64::from(self.head.pending.is_some())
    }

    /// What the one who saved it wrote beside the stream.
    pub fn note(&self) -> &str {
        &self.head.note
    }
}

impl Head {
    fn settings(&self) -> CacheSettings {
        let Self { policy, sinks, window, chunk, kv, activations, slots, .. } = *self;
        CacheSettings { policy, sinks, window, chunk, kv, activations, ring: Some(slots) }
    }

    /// Bytes of K, V and logits; none when they are more than can be counted.
    fn body_bytes(&self) -> Option<usize> {
        self.cache_bytes.checked_add(self.logits.checked_mul(4)?)
    }

    /// Whether its parts agree with each other, or a sentence on which do not.
    fn check(&self) -> Result<(), String> {
        let Self { policy, sinks, window, slots, .. } = *self;
        if policy == Policy::HalfDiscard {
            return Err("its policy cannot be".into());
        }
        self.settings().geometry().map_err(|error| error.to_string())?;
        let stored = (sinks + slots) as u64;
        let recompute = policy == Policy::Recompute;
        let rows = if recompute { 0 } else { self.reach.min(stored) };
        // A token that is pending is fed over the first row that was written too far.
        let spare = (slots - window) as u64 + u64::from(self.pending.is_some());
        let gone = self.reach > stored && self.reach.saturating_sub(self.position) > spare;
        let given = self.position.saturating_add(u64::from(self.pending.is_some()));
        let recent = if recompute { self.position.min(window as u64) } else { 0 };
        let facts = [
            (given > 0 && given < u64::MAX / 2 && self.reach < u64::MAX / 2, "its position"),
            (recompute || self.position <= self.reach && !gone, "how far its ring was written"),
            // A layer with a window of its own may have more.
            (
                self.rows as u64 >= rows && self.rows as u64 <= self.reach.max(rows),
                "its rows of keys and values",
            ),
            (self.pending.is_some() == (self.logits == 0), "its logits"),
            (self.sinks_kept || policy == Policy::Streaming, "its sinks"),
            (policy != Policy::Dense || given <= window as u64 + 1, "its length"),
            (self.recent.len() as u64 == recent, "its recent tokens"),
        ];
        if let Some((_, what)) = facts.iter().find(|(right, _)| !right) {
            return Err(format!("{what} cannot be"));
        }
        let Some(draw) = &self.sampler else { return Ok(()) };
        draw.settings.check().map_err(|error| error.to_string())?;
        let most =
            if draw.settings.penalises() { draw.settings.penalty_last_n as usize } else { 0 };
        match draw.recent.len() > most {
            true => Err("its penalised tokens cannot be".into()),
            false => Ok(()),
        }
    }

    /// Every token id that it names.
    fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        let drawn = self.sampler.iter().flat_map(|draw| &draw.recent);
        self.recent.iter().chain(&self.pending).chain([&self.last]).chain(drawn).copied()
    }
}

impl Session {
    /// The stream as it is now, and where `generation`, which leads it on, stands. Both go on undisturbed: what they
    /// are ahead is left out. `note` is given back by [`Snapshot::note`].
    pub async fn snapshot(
        &self,
        generation: Option<&Generation>,
        note: impl Into<String>,
    ) -> Result<Snapshot> {
        if self.position() == 0 {
            return Err(Error::Usage("there is nothing to save yet: feed a token first".into()));
        }
        let (settings, ring) = (self.cache.settings(), self.cache.geometry());
        if generation.is_some_and(|generation| generation.alone.is_constrained()) {
            return Err(Error::Usage(
                "a stream cannot be saved in the middle of an output that is held to a grammar: save it when that has \
                 ended"
                    .into(),
            ));
        }
        if settings.policy == Policy::HalfDiscard {
            return Err(Error::Usage(
                "a stream of half-discard cannot be saved: that policy is there to be compared with; streaming can"
                    .into(),
            ));
        }
        // Where the device is ahead, the last token given out is fed anew, as if it were still to come.
        let at = &self.standing;
        self.expect_kept(0, at.ahead)?;
        let (position, pending) = match (at.ahead, at.pending) {
            (0, Some(pending)) => (at.fed, Some(pending)),
            (0, None) if !at.stale => (at.fed, None),
            (ahead, _) => (at.fed - ahead - 1, at.last()),
        };
        let recompute = settings.policy == Policy::Recompute;
        let reach = at.reach.max(at.fed + self.beyond());
        let rows = if recompute { 0 } else { self.rows(reach) };
        let cache_bytes = self.stored(rows).map(|(_, bytes)| bytes).sum();
        let config = &self.model.config;
        let head = Head {
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.identity.clone(),
            policy: settings.policy,
            sinks: settings.sinks,
            window: settings.window,
            chunk: settings.chunk,
            kv: settings.kv,
            activations: settings.activations,
            slots: ring.slots as usize,
            rows,
            cache_bytes,
            logits: if pending.is_some() { 0 } else { config.n_vocab },
            position,
            reach: if recompute { position } else { reach },
            pending,
            last: at.last().unwrap_or_default(),
            sinks_kept: self.sinks_kept,
            recent: if recompute { self.fed_last(pending.is_some()) } else { Vec::new() },
            sampler: generation.map(Generation::draw),
            note: note.into(),
        };
        let mut body = vec![0; cache_bytes + 4 * head.logits];
        let (mut cache, logits) = body.split_at_mut(cache_bytes);
        let gpu = &*self.model.gpu;
        let most = self.stored(rows).map(|(_, bytes)| bytes).max().unwrap_or(0);
        let back = Readback::new(gpu, most / 4)?;
        for (tensor, bytes) in self.stored(rows).filter(|(_, bytes)| *bytes > 0) {
            let out;
            (out, cache) = cache.split_at_mut(bytes);
            gpu.run(&[], &[(tensor, &back)]);
            back.read(gpu, out).await?;
        }
        if !logits.is_empty() {
            let mut values = vec![0.0; head.logits];
            self.read_logits(&mut values).await?;
            logits.copy_from_slice(bytemuck::cast_slice(&values));
        }
        Snapshot::new(head, &body)
    }

    /// The last W tokens, but for the very last of the stream if that is still `to_come`.
    fn fed_last(&self, to_come: bool) -> Vec<u32> {
        let known = self.standing.known();
        let end = known.len() - usize::from(to_come);
        let begin = end.saturating_sub(self.cache.settings().window);
        known.skip(begin).take(end - begin).collect()
    }

    /// Rows of keys and of values that a layer has at most once so many tokens were written.
    fn rows(&self, reach: u64) -> usize {
        let ring = self.cache.longest();
        reach.min(u64::from(ring.sinks) + u64::from(ring.slots)) as usize
    }

    /// What the cache keeps, in the order of a snapshot, and how many bytes of it are in one of so many rows: a layer may
    /// have fewer.
    fn stored(&self, rows: usize) -> impl Iterator<Item = (&Tensor, usize)> {
        self.cache.stored().map(move |(tensor, row_slots)| {
            let rows = rows.div_ceil(row_slots).min(tensor.shape[0]);
            (tensor, 4 * rows * tensor.shape[1])
        })
    }

    /// Becomes the stream that was saved, whatever it was before. The session must have been made from
    /// [`Snapshot::settings`] over the same model; an error says what differs, and changes nothing.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        let Snapshot { head, bytes, body, .. } = snapshot;
        self.expect_fit(snapshot)?;
        self.leave_rows();
        let gpu = &*self.model.gpu;
        let (mut cache, logits) = bytes[body.clone()].split_at(head.cache_bytes);
        for (tensor, bytes) in self.stored(head.rows).filter(|(_, bytes)| *bytes > 0) {
            let rows;
            (rows, cache) = cache.split_at(bytes);
            tensor.write(gpu, 0, rows);
        }
        if !logits.is_empty() {
            self.logits.write(gpu, 0, logits);
        }
        self.standing.reset();
        self.standing.fed = head.position;
        self.standing.reach = head.reach;
        self.standing.pending = head.pending;
        self.standing.note(&head.recent);
        if self.standing.last() != Some(head.last) || head.pending.is_some() {
            self.standing.note(&[head.last]);
        }
        self.sinks_kept = head.sinks_kept;
        gpu.check()
    }

    fn expect_fit(&self, snapshot: &Snapshot) -> Result<()> {
        let (head, config) = (&snapshot.head, &self.model.config);
        let differs = |what: &str, saved: String, here: String, advice: &str| {
            Err(Error::Usage(format!(
                "the stream was saved from {what} {saved}, and this is {here}; {advice}"
            )))
        };
        if head.model != self.model.identity {
            let [saved, here] = [&head.model, &self.model.identity].map(Identity::short);
            return differs("the model", saved, here, "resume it with the file it was saved from");
        }
        let ring = Some(self.cache.geometry().slots as usize);
        let (saved, here) = (snapshot.settings(), CacheSettings { ring, ..self.cache.settings() });
        if saved != here {
            let [saved, here] = [saved, here].map(|cache| format!("{cache:?}"));
            return differs(
                "a cache of",
                saved,
                here,
                "make the session from the snapshot's settings",
            );
        }
        // It was saved from this model with this cache, and yet…
        let damaged = |what: String| Error::Format {
            file: snapshot.file.clone(),
            offset: START as u64,
            detail: format!("the saved stream is damaged: {what}; use another copy of it"),
        };
        let rows = if self.recomputes() { 0 } else { self.rows(head.reach) };
        if head.rows != rows {
            return Err(damaged(format!(
                "it has {} rows of keys and values, not {rows}",
                head.rows
            )));
        }
        let sizes = [head.cache_bytes, head.logits];
        let logits = if head.logits == 0 { 0 } else { config.n_vocab };
        let wanted = [self.stored(rows).map(|(_, bytes)| bytes).sum(), logits];
        if sizes != wanted {
            let [saved, here] =
                [sizes, wanted].map(|[b, l]| format!("a cache of {b} bytes and {l} logits"));
            return Err(damaged(format!("it has {saved}, and its model {here}")));
        }
        match head.tokens().find(|&id| id as usize >= config.n_vocab) {
            Some(id) => Err(damaged(format!(
                "it has a token {id}, and its model {} of them",
                config.n_vocab
            ))),
            None => Ok(()),
        }
    }

    /// The generation that led the saved stream on, where it stopped; none if it was saved without one. To be asked
    /// of the session that was restored from it.
    pub fn resume(&self, snapshot: &Snapshot) -> Result<Option<Generation>> {
        let Some(draw) = &snapshot.head.sampler else { return Ok(None) };
        let mut generation = self.generate(draw.settings.clone(), &draw.banned)?;
        generation.sampler.resume(&draw.recent, draw.draws);
        Ok(Some(generation))
    }
}

impl Generation {
    fn draw(&self) -> Draw {
        let (settings, banned) = self.sampler.settings();
        let (recent, draws) = self.sampler.state();
        Draw {
            settings: settings.clone(),
            banned: banned.to_vec(),
            draws,
            recent: recent.collect(),
        }
    }
}
