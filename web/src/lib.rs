//! The engine for JavaScript. Types and errors are translated here; what a stream does is the library's business,
//! and what a page sees of it is `js/`'s.
mod chat;
pub mod errors;
mod file;
mod held;
mod info;
mod options;
mod pool;

use brooklet::chat::Chat;
use brooklet::format::{Gguf, Shards};
use brooklet::gpu::{BrowserAdapter, Gpu};
use brooklet::model::{CacheSettings, Config, KernelSettings, LoadSettings, Model, Policy};
use brooklet::ops::Origin;
use brooklet::session::{Read, Reading, Session};
use brooklet::text::{SamplerSettings, StopTexts, Templates, Tokenizer, Vocab};
use brooklet::tune::{self, Kept};
use brooklet::wire::{ModelInfo, reason};
use brooklet::{Error, Result};
use errors::{Thrown, parsed};
use file::{Caught, File, JsFile};
use held::{Held, JsMatcher, Tokens};
use js_sys::{Array, Function};
use options::{CacheOptions, StreamOptions, TuneOptions, cache_settings};
use pool::Pool;
use sha2::{Digest, Sha256};
use std::rc::Rc;
use std::sync::Arc;
use wasm_bindgen::prelude::*;

/// A panic is a defect of this package. It reaches JavaScript as an exception with its message, not as a bare trap.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
}

/// A model on the GPU and one stream over it. Forks have streams of their own over the same model.
#[wasm_bindgen]
pub struct Core {
    loaded: Rc<Loaded>,
    stage: Stage,
    reading: Option<Reading>,
}

/// What a core and its forks have in common.
struct Loaded {
    info: ModelInfo,
    /// What is odd about the file.
    warnings: Vec<String>,
    tokenizer: Arc<Tokenizer>,
    /// What the file suggests for conversations.
    sampling: SamplerSettings,
    templates: Templates,
    model: Arc<Model>,
    pool: Pool,
    /// Which kernels suit which device, as far as it has been measured.
    kept: Kept,
}

impl Drop for Core {
    fn drop(&mut self) {
        let session = match std::mem::replace(&mut self.stage, Stage::Empty) {
            Stage::Empty => None,
            Stage::Stream(session) => Some(*session),
            Stage::Chat(chat) => Some(chat.into_session()),
        };
        self.reading = None;
        self.loaded.pool.leave(session);
    }
}

/// What has the cache.
enum Stage {
    /// There is none only while another is made, and after that has failed twice.
    Empty,
    /// One stream.
    Stream(Box<Session>),
    /// A conversation.
    Chat(Box<Chat>),
}

#[wasm_bindgen]
impl Core {
    /// Streams a model to the GPU and makes room for the caches of so many streams. `adapter`, `cache`, `tuning`: JSON.
    /// `progress(loaded, total)` is called as bytes arrive; with `loaded` equal to `total` when shaders are compiled.
    pub async fn load(
        file: JsFile,
        adapter: String,
        cache: String,
        streams: u32,
        tuning: String,
        progress: Function,
    ) -> Result<Core, Thrown> {
        let adapter: BrowserAdapter = parsed("adapter", &adapter)?;
        let cache: CacheOptions = parsed("cache options", &cache)?;
        let tuning: TuneOptions = parsed("tuning options", &tuning)?;
        let caught = Caught::default();
        let loaded = async {
            let (file, gguf) = File::gather(file, &caught).await?;
            let cache = (cache, streams as usize);
            Self::load_file(&file, gguf, adapter, cache, tuning, progress).await
        };
        loaded.await.map_err(|error| caught.thrown(error))
    }

    async fn load_file(
        file: &Shards<File>,
        gguf: Gguf,
        adapter: BrowserAdapter,
        (cache, streams): (CacheOptions, usize),
        tuning: TuneOptions,
        progress: Function,
    ) -> Result<Core> {
        Config::expect_family(&gguf)?;
        let tokenizer = Arc::new(Tokenizer::new(Vocab::from_gguf(&gguf)?)?);
        let config = Config::for_tokens(&gguf, tokenizer.len())?;
        cache_settings(&cache, &config, None).geometry()?;
        let sampling = SamplerSettings::default().suggested_by(&gguf)?;
        let templates = Templates::of_model(&gguf, &tokenizer)?;
        let info = ModelInfo::new(&gguf, &config, brooklet::format::Source::len(file))?;
        let gpu = Arc::new(Gpu::open_in_browser(adapter).await?);
        let settings = cache_settings(&cache, &config, Some(&gpu));
        let mut told = |loaded: u64, total: u64| {
            // Told for the eyes alone: a listener that throws must not end the load.
            let _ = progress.call2(&JsValue::NULL, &(loaded as f64).into(), &(total as f64).into());
        };
        // Whatever fails from here on, GPU memory is not left to the garbage collector.
        let free = |error| {
            gpu.destroy();
            error
        };
        let mut kept = Kept::parse(&tuning.kept);
        let choice = tune::choose(&gpu, &gguf, &config, tuning.tune, &mut kept);
        let choice = choice.await.map_err(free)?;
        let mut kernels = KernelSettings::from(&settings);
        kernels.rows = streams > 1;
        let load = LoadSettings { config, variant: Some(choice), kernels };
        let model = Model::with_settings(gpu.clone(), file, &gguf, load, &mut told).await;
        let model = Arc::new(model.map_err(free)?);
        let pool = Pool::new(model.clone(), streams);
        let session = pool.session(settings).await.map_err(free)?;
        pool.enter()?;
        let warnings = [gguf.warnings.as_slice(), tokenizer.warnings()].concat();
        let loaded = Loaded { info, warnings, tokenizer, sampling, templates, model, pool, kept };
        let stage = Stage::Stream(Box::new(session));
        Ok(Self { loaded: Rc::new(loaded), stage, reading: None })
    }

    /// Another stream over the same model, which begins as a copy of this one; where a conversation has the cache, with
    /// nothing, in a cache of streams (JSON). An error where there are as many as the model was loaded for.
    pub async fn fork(&self, cache: String) -> Result<Core, Thrown> {
        let cache: CacheOptions = parsed("cache options", &cache)?;
        let loaded = self.loaded.clone();
        loaded.pool.enter()?;
        let mut fork = Core { loaded, stage: Stage::Empty, reading: None };
        let Loaded { model, pool, .. } = &*self.loaded;
        let session = match &self.stage {
            Stage::Stream(stream) => {
                let mut session = pool.session(stream.cache().settings()).await?;
                if stream.position() > 0 {
                    session.fork_from(stream)?;
                }
                session
            }
            _ => pool.session(cache_settings(&cache, &model.config, Some(&model.gpu))).await?,
        };
        fork.stage = Stage::Stream(Box::new(session));
        Ok(fork)
    }

    fn session(&self) -> Result<&Session> {
        match &self.stage {
            Stage::Empty => Err(no_session()),
            Stage::Stream(session) => Ok(session),
            Stage::Chat(chat) => Ok(chat.session()),
        }
    }

    /// The session of a stream: whoever feeds a conversation's breaks it.
    fn stream(&mut self) -> Result<&mut Session> {
        match &mut self.stage {
            Stage::Stream(session) => Ok(session),
            Stage::Empty => Err(no_session()),
            Stage::Chat(_) => Err(Error::Usage(
                "a conversation has the cache: reset the engine to stream again".to_owned(),
            )),
        }
    }

    /// What is odd about the model's file, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.loaded.warnings.clone()
    }

    /// What the load has measured and what was known before, to be kept for the next; none where nothing is new.
    pub fn tuned(&self) -> Option<String> {
        let Loaded { model, kept, .. } = &*self.loaded;
        (model.variant.origin == Origin::Measured).then(|| kept.text())
    }

    /// The ids of a text that follows what was fed so far.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Thrown> {
        Ok(match self.session()?.position() {
            0 => self.loaded.tokenizer.encode_first(text)?,
            _ => self.loaded.tokenizer.encode(text, false)?,
        })
    }

    /// The text of one token by itself.
    pub fn piece(&self, id: u32) -> String {
        String::from_utf8_lossy(self.loaded.tokenizer.bytes(id)).into_owned()
    }

    /// The tokens of the model, for another module.
    pub fn tokens(&self) -> Tokens {
        Tokens(self.loaded.tokenizer.clone())
    }

    /// Takes tokens in, and gives how many: while `go_on`, asked before each pass over some of them, is true.
    pub async fn feed(&mut self, ids: Vec<u32>, go_on: Option<Function>) -> Result<u32, Thrown> {
        let mut going = Going::new(go_on);
        let fed = self.stream()?.feed_while(&ids, || going.on()).await?;
        going.thrown(fed as u32)
    }

    /// Gets ready to generate after what was fed. `options`: JSON. What is held to rules ends where they do.
    pub fn begin(&mut self, options: &str, rules: Option<JsMatcher>) -> Result<(), Thrown> {
        let held = rules.map(Held::new);
        let options: StreamOptions = parsed("stream options", options)?;
        let (tokenizer, none) = (self.loaded.tokenizer.clone(), &[][..]);
        let (banned, ends) = match options.stop_at_eos || held.is_some() {
            true => (none, tokenizer.eog()),
            false => (tokenizer.eog(), none),
        };
        let session = self.stream()?;
        let sampling = options.sampler(SamplerSettings::default());
        let mut generation = session.generate_on(sampling, banned, options.pace)?;
        if let Some(held) = held {
            generation.constrain(held);
        }
        let tokens = options.max_tokens.unwrap_or(u64::MAX);
        self.reading = Some(Reading::new(generation, ends, StopTexts::new(options.stop), tokens));
        Ok(())
    }

    /// The next token as `[text, token]`; at the end `[text, undefined, reason]`, with the text that was held back.
    pub async fn next(&mut self) -> Result<Array, Thrown> {
        let (Stage::Stream(session), Some(reading)) = (&mut self.stage, &mut self.reading) else {
            return Err(Error::Usage("next was called before begin".to_owned()).into());
        };
        Ok(match reading.next(session, &self.loaded.tokenizer).await? {
            Read::Token { token, text } => Array::of2(&text.into(), &token.into()),
            Read::End(why) => {
                let rest = reading.finish();
                Array::of3(&rest.into(), &JsValue::UNDEFINED, &reason(why).into())
            }
        })
    }

    /// Takes back the last tokens; `last` is the one before them.
    pub async fn rewind(&mut self, tokens: u32, last: u32) -> Result<(), Thrown> {
        Ok(self.stream()?.rewind(u64::from(tokens), last).await?)
    }

    /// The last token of the stream; none where there is none, or none is remembered.
    pub fn last(&self) -> Option<u32> {
        self.session().ok()?.recent().next_back()
    }

    /// Tokens of the stream so far.
    pub fn position(&self) -> f64 {
        self.session().map_or(0.0, |session| session.position() as f64)
    }

    /// Tokens that nothing can look back on any more.
    pub fn evicted(&self) -> f64 {
        self.session().map_or(0.0, |session| session.evicted() as f64)
    }

    /// Switches a running stream between `streaming` and `window`. `policy`: JSON.
    pub fn set_policy(&mut self, policy: &str) -> Result<(), Thrown> {
        let policy: Policy = parsed("policy", policy)?;
        Ok(self.stream()?.set_policy(policy)?)
    }

    /// Starts anew; with options (JSON), with another cache.
    pub async fn reset(&mut self, cache: Option<String>) -> Result<(), Thrown> {
        let Some(cache) = cache else {
            self.reading = None;
            self.stream()?.reset();
            return Ok(());
        };
        let cache: CacheOptions = parsed("cache options", &cache)?;
        let settings =
            cache_settings(&cache, &self.loaded.model.config, Some(&self.loaded.model.gpu));
        settings.geometry()?;
        self.stage = Stage::Stream(Box::new(self.renewed(settings).await?));
        Ok(())
    }

    /// An empty session with such a cache, in the place of what has one now. Where there is no room for it, a stream
    /// with a cache as there was one before, if that still fits.
    async fn renewed(&mut self, settings: CacheSettings) -> Result<Session> {
        self.reading = None;
        let old = match std::mem::replace(&mut self.stage, Stage::Empty) {
            Stage::Empty => None,
            Stage::Stream(session) => Some(*session),
            Stage::Chat(chat) => Some(chat.into_session()),
        };
        let before = old.as_ref().map(|session| session.cache().settings());
        let pool = &self.loaded.pool;
        // The old one first: there may not be room for both.
        match old {
            Some(mut session) if before == Some(settings) => {
                session.reset();
                return Ok(session);
            }
            Some(session) => pool.give_back(session),
            None => {}
        }
        let made = pool.session(settings).await;
        if let (Err(_), Some(before)) = (&made, before)
            && let Ok(session) = pool.session(before).await
        {
            self.stage = Stage::Stream(Box::new(session));
        }
        made
    }

    /// What gives the GPU memory back while the core is at work.
    pub fn device(&self) -> Device {
        Device(self.loaded.model.gpu.clone())
    }
}

/// The GPU device of a [`Core`], which can be given up while a call into the core has not come back.
#[wasm_bindgen]
pub struct Device(Arc<Gpu>);

#[wasm_bindgen]
impl Device {
    /// Gives all GPU memory back at once. Also what a lost device looks like to whoever goes on.
    pub fn destroy(&self) {
        self.0.destroy();
    }
}

/// A question that JavaScript answers before each pass over some tokens: whether to go on.
struct Going {
    question: Option<Function>,
    thrown: Option<JsValue>,
}

impl Going {
    fn new(question: Option<Function>) -> Self {
        Self { question, thrown: None }
    }

    fn on(&mut self) -> bool {
        match self.question.as_ref().map(|question| question.call0(&JsValue::NULL)) {
            None => true,
            Some(Ok(answer)) => answer.is_truthy(),
            Some(Err(error)) => {
                self.thrown = Some(error);
                false
            }
        }
    }

    /// `result`, or what the answer threw.
    fn thrown<T>(self, result: T) -> Result<T, Thrown> {
        self.thrown.map_or(Ok(result), |error| Err(Thrown(error)))
    }
}

fn no_session() -> Error {
    Error::Usage(
        "there is no cache: the last reset found no room for one; reset to a smaller window"
            .to_owned(),
    )
}

/// sha256 of a file that arrives in pieces.
#[wasm_bindgen]
#[derive(Default)]
pub struct Hasher(Sha256);

#[wasm_bindgen]
impl Hasher {
    /// Of nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In hexadecimal, of everything so far.
    pub fn digest(&self) -> String {
        self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Every kernel as the browser gets it: `[[name, wgsl], …]` in JSON. For the test that compiles them all.
#[wasm_bindgen]
pub fn kernels() -> String {
    let kernels = brooklet::ops::kernels();
    let list: Vec<_> = kernels.iter().map(|kernel| (kernel.name, kernel.for_browsers())).collect();
    serde_json::json!(list).to_string()
}
