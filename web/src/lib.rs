//! The engine for JavaScript. Types and errors are translated here; what a stream does is the library's business,
//! and what a page sees of it is `js/`'s.
pub mod errors;
mod file;
mod options;

use brooklet::format::{Gguf, Shards, TensorInfo};
use brooklet::gpu::{BrowserAdapter, Gpu};
use brooklet::model::{CacheSettings, Config, LoadSettings, Model, Policy};
use brooklet::ops::Origin;
use brooklet::session::{Generation, Session};
use brooklet::text::{Detokenizer, StopTexts, Tokenizer, Vocab};
use brooklet::tune::{self, Kept};
use brooklet::{Error, Result};
use errors::{Thrown, parsed};
use file::{Caught, File, JsFile};
use js_sys::Function;
use options::{CacheOptions, StreamOptions, TuneOptions};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use wasm_bindgen::prelude::*;

/// A panic is a defect of this package. It reaches JavaScript as an exception with its message, not as a bare trap.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
}

/// What a file says of its model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelInfo {
    name: String,
    architecture: String,
    kinds: String,
    bytes: u64,
    parameters: u64,
    quantization: String,
    n_ctx: usize,
    n_vocab: usize,
    n_layer: usize,
    n_embd: usize,
}

impl ModelInfo {
    fn new(gguf: &Gguf, config: &Config, bytes: u64) -> Result<Self> {
        let count = |tensor: &TensorInfo| tensor.rows() * tensor.cols();
        let largest = gguf.tensors.iter().max_by_key(|tensor| {
            let same = gguf.tensors.iter().filter(|other| other.type_id == tensor.type_id);
            same.map(count).sum::<u64>()
        });
        Ok(Self {
            name: gguf.str("general.name")?.unwrap_or(gguf.file()).to_owned(),
            architecture: gguf.need_str("general.architecture")?.to_owned(),
            kinds: config.kinds(),
            bytes,
            parameters: gguf.tensors.iter().map(count).sum(),
            quantization: largest.map_or_else(String::new, TensorInfo::type_text),
            n_ctx: config.n_ctx,
            n_vocab: config.n_vocab,
            n_layer: config.n_layer,
            n_embd: config.n_embd,
        })
    }
}

/// A model on the GPU and one stream over it.
#[wasm_bindgen]
pub struct Core {
    info: ModelInfo,
    /// What is odd about the file.
    warnings: Vec<String>,
    tokenizer: Tokenizer,
    model: Arc<Model>,
    /// Which kernels suit which device, as far as it has been measured.
    kept: Kept,
    /// There is none only while another is made, and after that has failed twice.
    session: Option<Session>,
    generation: Option<Generation>,
    detokenizer: Detokenizer,
    stop: StopTexts,
    stop_met: bool,
}

#[wasm_bindgen]
impl Core {
    /// Streams a model to the GPU and makes room for its cache. `adapter`, `cache`, `tuning`: JSON. `progress(loaded, total)` is
    /// called as bytes arrive; with `loaded` equal to `total` when shaders are compiled.
    pub async fn load(
        file: JsFile,
        adapter: String,
        cache: String,
        tuning: String,
        progress: Function,
    ) -> Result<Core, Thrown> {
        let adapter: BrowserAdapter = parsed("adapter", &adapter)?;
        let cache: CacheOptions = parsed("cache options", &cache)?;
        let tuning: TuneOptions = parsed("tuning options", &tuning)?;
        let caught = Caught::default();
        let loaded = async {
            let (file, gguf) = File::gather(file, &caught).await?;
            Self::load_file(&file, gguf, adapter, cache, tuning, progress).await
        };
        loaded.await.map_err(|error| caught.thrown(error))
    }

    async fn load_file(
        file: &Shards<File>,
        gguf: Gguf,
        adapter: BrowserAdapter,
        cache: CacheOptions,
        tuning: TuneOptions,
        progress: Function,
    ) -> Result<Core> {
        Config::expect_family(&gguf)?;
        let tokenizer = Tokenizer::new(Vocab::from_gguf(&gguf)?)?;
        let config = Config::for_tokens(&gguf, tokenizer.len())?;
        cache.settings(&config, None).geometry()?;
        let info = ModelInfo::new(&gguf, &config, brooklet::format::Source::len(file))?;
        let gpu = Arc::new(Gpu::open_in_browser(adapter).await?);
        let settings = cache.settings(&config, Some(&gpu));
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
        let load = LoadSettings { config, variant: Some(choice), kernels: (&settings).into() };
        let model = Model::with_settings(gpu.clone(), file, &gguf, load, &mut told).await;
        let model = Arc::new(model.map_err(free)?);
        let session = Session::new(model.clone(), settings).await.map_err(free)?;
        Ok(Self {
            info,
            warnings: [gguf.warnings.as_slice(), tokenizer.warnings()].concat(),
            tokenizer,
            model,
            kept,
            session: Some(session),
            generation: None,
            detokenizer: Detokenizer::new(),
            stop: StopTexts::default(),
            stop_met: false,
        })
    }

    fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(no_session)
    }

    fn session_mut(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(no_session)
    }

    /// What is odd about the model's file, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// What the load has measured and what was known before, to be kept for the next; none where nothing is new.
    pub fn tuned(&self) -> Option<String> {
        (self.model.variant.origin == Origin::Measured).then(|| self.kept.text())
    }

    /// Model, adapter, kernels, tier, cache and bytes, as JSON.
    pub fn info(&self) -> Result<String, Thrown> {
        let (session, gpu) = (self.session()?, &self.model.gpu);
        let (settings, ring) = (session.cache().settings(), session.cache().geometry());
        let (weights, kv) = (self.model.bytes(), session.cache().bytes());
        let activations = session.activation_bytes();
        let tier = &gpu.tier;
        let info = serde_json::json!({
            "model": self.info,
            "adapter": { "name": gpu.name, "backend": gpu.backend, "driver": gpu.driver },
            "kernels": self.model.variant,
            "tier": {
                "f16": tier.f16,
                "subgroups": tier.subgroups,
                "subgroupSize": tier.subgroup_size,
                "timestamps": tier.timestamps,
                "cpu": tier.cpu,
            },
            "limits": {
                "maxBinding": tier.max_binding,
                "maxBuffer": tier.max_buffer,
                "workgroupMemory": tier.workgroup_memory,
            },
            "cache": {
                "policy": session.policy(),
                "sinks": ring.sinks,
                "window": ring.window,
                "ring": ring.slots,
                "chunk": settings.chunk,
                "kv": settings.kv,
                "activations": settings.activations,
            },
            "bytes": {
                "weights": weights,
                "kv": kv,
                "activations": activations,
                "gpu": gpu.counters.held(),
            },
        });
        Ok(info.to_string())
    }

    /// The ids of a text that follows what was fed so far.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Thrown> {
        Ok(match self.session()?.position() {
            0 => self.tokenizer.encode_first(text)?,
            _ => self.tokenizer.encode(text, false)?,
        })
    }

    /// The text of one token by itself.
    pub fn piece(&self, id: u32) -> String {
        String::from_utf8_lossy(self.tokenizer.bytes(id)).into_owned()
    }

    /// Takes tokens in, and gives how many: while `go_on`, asked before each pass over some of them, is true.
    pub async fn feed(&mut self, ids: Vec<u32>, go_on: Option<Function>) -> Result<u32, Thrown> {
        let mut thrown = None;
        let asks = || match go_on.as_ref().map(|go_on| go_on.call0(&JsValue::NULL)) {
            None => true,
            Some(Ok(answer)) => answer.is_truthy(),
            Some(Err(error)) => {
                thrown = Some(error);
                false
            }
        };
        let fed = self.session_mut()?.feed_while(&ids, asks).await?;
        thrown.map_or(Ok(fed as u32), |error| Err(Thrown(error)))
    }

    /// Gets ready to generate after what was fed. `options`: JSON.
    pub fn begin(&mut self, options: &str) -> Result<(), Thrown> {
        let options: StreamOptions = parsed("stream options", options)?;
        let session = self.session()?;
        let banned = if options.stop_at_eos { &[] } else { self.tokenizer.eog() };
        let mut generation = session.generate(options.sampler(), banned)?;
        // Penalties are for all that the stream remembers, whoever fed or chose it.
        generation.set_pace(options.pace);
        session.recent().for_each(|id| generation.accept(id));
        self.generation = Some(generation);
        self.stop = StopTexts::new(options.stop);
        self.stop_met = false;
        self.detokenizer = Detokenizer::new();
        Ok(())
    }

    /// The next token; none when a dense cache is full.
    pub async fn next(&mut self) -> Result<Option<u32>, Thrown> {
        let session = self.session.as_mut().ok_or_else(no_session)?;
        let Some(generation) = self.generation.as_mut() else {
            return Err(Error::Usage("next was called before begin".to_owned()).into());
        };
        Ok(generation.next(session).await?)
    }

    /// Whether a token ends the text.
    pub fn is_end(&self, id: u32) -> bool {
        self.tokenizer.eog().contains(&id)
    }

    /// What can be shown after this token.
    pub fn shown(&mut self, id: u32) -> String {
        let text = self.detokenizer.push(&self.tokenizer, id);
        let (text, met) = self.stop.push(text);
        self.stop_met = met;
        text
    }

    /// Whether the last `shown` met a stop text.
    pub fn stop_met(&self) -> bool {
        self.stop_met
    }

    /// What was held back, at the end of a stream that no stop text has ended.
    pub fn finish(&mut self) -> String {
        let (rest, _) = self.stop.push(self.detokenizer.finish());
        rest + &self.stop.finish()
    }

    /// Takes back the last tokens; `last` is the one before them.
    pub async fn rewind(&mut self, tokens: u32, last: u32) -> Result<(), Thrown> {
        Ok(self.session_mut()?.rewind(u64::from(tokens), last).await?)
    }

    /// Tokens of the stream so far.
    pub fn position(&self) -> f64 {
        self.session.as_ref().map_or(0.0, |session| session.position() as f64)
    }

    /// Tokens that nothing can look back on any more.
    pub fn evicted(&self) -> f64 {
        self.session.as_ref().map_or(0.0, |session| session.evicted() as f64)
    }

    /// Switches a running stream between `streaming` and `window`. `policy`: JSON.
    pub fn set_policy(&mut self, policy: &str) -> Result<(), Thrown> {
        let policy: Policy = parsed("policy", policy)?;
        Ok(self.session_mut()?.set_policy(policy)?)
    }

    /// Starts anew; with options (JSON), with another cache.
    pub async fn reset(&mut self, cache: Option<String>) -> Result<(), Thrown> {
        self.generation = None;
        let Some(cache) = cache else {
            self.session_mut()?.reset();
            return Ok(());
        };
        let cache: CacheOptions = parsed("cache options", &cache)?;
        let settings = cache.settings(&self.model.config, Some(&self.model.gpu));
        settings.geometry()?;
        let before = self.session.as_ref().map(|session| session.cache().settings());
        // The old one first: there may not be room for both.
        self.session = None;
        let made = Session::new(self.model.clone(), settings).await;
        let (session, error) = match (made, before) {
            (Ok(session), _) => (Some(session), None),
            (Err(error), Some(before)) => (self.restored(before).await, Some(error)),
            (Err(error), None) => (None, Some(error)),
        };
        self.session = session;
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// A cache as there was one before, if that still fits.
    async fn restored(&self, settings: CacheSettings) -> Option<Session> {
        Session::new(self.model.clone(), settings).await.ok()
    }

    /// What gives the GPU memory back while the core is at work.
    pub fn device(&self) -> Device {
        Device(self.model.gpu.clone())
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
