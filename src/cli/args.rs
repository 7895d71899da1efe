//! What the user may say.
use super::activations::ActivationsArgs;
use super::fetch::{FetchArgs, ModelsArgs, PullArgs};
use super::grammar::GrammarArgs;
use super::pace::PaceArgs;
use super::sampling::{OrElse, SamplingArgs};
use super::saved::SaveArgs;
use super::sinks::Sinks;
use super::soak::SoakArgs;
use super::weights::{ConvertArgs, QuantArg};
pub(crate) use super::wish::AdapterArgs;
use brooklet::model::{CacheSettings, Config, KernelSettings, KvType, Policy, Softmax};
use brooklet::text::SamplerSettings;
use brooklet::{Error, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A language model that never has to stop.
///
/// Attention keeps a few sinks (the first tokens) and a ring of recent ones in GPU memory, so a
/// stream costs the same memory and the same time per token at any length. What has left the
/// window is forgotten: endless is not unlimited memory.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Stream text from a model until told to stop.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Talk with a model: a conversation that never has to end.
    #[command(after_help = super::chat::EXAMPLES)]
    Chat(Box<super::chat::ChatArgs>),
    /// Answer over HTTP, in the protocol of OpenAI's clients.
    #[cfg(feature = "serve")]
    #[command(after_help = super::serve::EXAMPLES)]
    Serve(Box<super::serve::ServeArgs>),
    /// Open a window to talk and stream in: the page, and this engine behind it.
    #[cfg(feature = "serve")]
    #[command(after_help = super::app::EXAMPLES)]
    App(Box<super::app::AppArgs>),
    /// List the adapters and what each can do.
    Devices(DevicesArgs),
    /// Show a model file: metadata, tensors, and whether it can run here.
    Inspect(InspectArgs),
    /// Print the token ids of a text.
    Tokenize(TokenizeArgs),
    /// Print the largest logits after a text, to compare with other engines.
    Logits(LogitsArgs),
    /// Stream a great many tokens, and hold them to the paper, to their memory and to their speed.
    #[command(after_help = SOAK_EXAMPLES)]
    Soak(Box<SoakArgs>),
    /// Measure: how fast it loads, reads and writes here, what a token costs, what each kernel takes.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<BenchArgs>),
    /// Measure perplexity: how well a text is predicted, with exactly the cache a stream would have.
    #[command(after_help = super::ppl::EXAMPLES)]
    Ppl(Box<super::ppl::PplArgs>),
    /// Ask a stream for what it was told: accuracy by how far back that was.
    #[command(after_help = super::streameval::EXAMPLES)]
    Streameval(Box<super::streameval::StreamevalArgs>),
    /// Measure how much attention the first tokens draw, and how many sinks the model needs.
    #[command(after_help = super::sinkscan::EXAMPLES)]
    Sinkscan(super::sinkscan::SinkscanArgs),
    /// Fetch models by name, or what has changed of them, and print where they are.
    #[command(after_help = PULL_EXAMPLES)]
    Pull(PullArgs),
    /// List the models that were fetched, or remove some.
    Models(ModelsArgs),
    /// Write a folder of safetensors as a GGUF file.
    Convert(ConvertArgs),
}

const PULL_EXAMPLES: &str = "Examples:
  brooklet pull hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF
  brooklet pull hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF:Q8_0
  brooklet pull https://example.org/models/tiny.gguf
  brooklet run -m hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF   fetched if it is not here
  brooklet models rm hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF

Without QUANT it is Q4_K_M, else Q8_0, else the first file. HF_ENDPOINT names another hub, HF_TOKEN a token, which is \
sent to the hub alone. Proxies are taken from HTTPS_PROXY. What is in the Hugging Face cache is used from there.";

const RUN_EXAMPLES: &str = "Examples:
  brooklet run -p 'Once upon a time'                  for ever, until Ctrl-C
  brooklet run -p 'The capital of France is' -n 64 --temp 0
  cat book.txt | brooklet run - --window 252          a prompt of any length
  brooklet run --policy window --window 60            what happens without sinks
  brooklet run -p 'Once upon a time' --save night.bin kept, also on Ctrl-C and when killed
  brooklet run --resume night.bin --save night.bin    goes on as if it had never stopped
  brooklet run -p 'A man:' --json-schema '{\"type\": \"object\", \"properties\": {\"age\": {\"type\": \"integer\"}}}'
  brooklet run --json -n 10 | jq -r .text             for programs";

const BENCH_EXAMPLES: &str = "Examples:
  brooklet bench                                      medians of five runs
  brooklet bench --counters                           what a token costs, exactly
  brooklet bench --profile                            the time of each kernel
  brooklet bench --streams 1,2,4,8,16                 many streams, one set of weights
  brooklet bench --cache 256,1024,4096 --policy streaming,recompute --csv tokens.csv";

const SOAK_EXAMPLES: &str = "Examples:
  brooklet soak -m tiny.gguf --tokens 1000000 --kv f32 --save soak.bin --csv soak.csv
  brooklet soak -m tiny.gguf --tokens 1000000 --resume soak.bin --save soak.bin --csv soak.csv

The oracle runs on the CPU, in double precision, through the last layers x window tokens at every look: a tiny model
and a small window make it quick.";

/// Where a text comes from.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct TextArgs {
    /// The text itself
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// A file with the text
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// `-` reads the text from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) stdin: Option<String>,
}

/// Tokens instead of a text.
#[derive(Args)]
pub(crate) struct IdsArgs {
    /// Token ids instead of a text, fed as they are: whatever tokenizer the model has, it is not asked
    #[arg(long, value_name = "ID,…", value_delimiter = ',', conflicts_with = "TextArgs")]
    ids: Vec<u32>,
}

impl IdsArgs {
    /// Those that were given, if any.
    pub(crate) fn given(&self) -> Option<Vec<u32>> {
        (!self.ids.is_empty()).then(|| self.ids.clone())
    }
}

/// What is tried out with a model that was trained without it.
#[derive(Args)]
#[command(next_help_heading = "Experiments")]
pub(crate) struct ExperimentArgs {
    /// What attention's softmax begins with: nothing, or, off by one, a score of 0 that has no value
    #[arg(long, value_enum)]
    pub(crate) softmax: Option<SoftmaxArg>,
}

impl ExperimentArgs {
    /// Changes what the file says.
    pub(crate) fn change(&self, config: &mut Config) {
        match self.softmax {
            Some(SoftmaxArg::Plain) => config.softmax = Softmax::Plain,
            Some(SoftmaxArg::OffByOne) => config.softmax = Softmax::OffByOne,
            None => {}
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SoftmaxArg {
    Plain,
    OffByOne,
}

#[derive(Args)]
pub(crate) struct ModelArgs {
    /// A GGUF file; a folder of safetensors; or the name of a model, which is fetched if it is not here:
    /// hf:USER/REPO[:QUANT] or an https:// address [default: the model that `./build.sh setup` puts into the cache folder]
    #[arg(short, long, value_name = "FILE|NAME")]
    pub(crate) model: Option<PathBuf>,
    /// The type that matrices get of a folder of safetensors [default: as they are]
    #[arg(long, value_enum)]
    pub(crate) quant: Option<QuantArg>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PolicyArg {
    /// The first tokens and the recent ones: endless and stable
    Streaming,
    /// The recent ones alone: endless, but breaks once the first are lost
    Window,
    /// All of them, until the cache is full
    Dense,
    /// The recent ones, computed anew for every token: slow
    Recompute,
    /// As other engines do it: when the cache is full, half of it is thrown away
    HalfDiscard,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KvArg {
    /// Half precision
    F16,
    /// Single precision
    F32,
    /// Bytes with a scale for 32 of them: about half of f16
    #[value(name = "q8_0")]
    Q8_0,
    /// Four bits with a scale for 32 of them: about a quarter of f16
    #[value(name = "q4_0")]
    Q4_0,
}

impl From<KvArg> for KvType {
    fn from(kv: KvArg) -> Self {
        match kv {
            KvArg::F16 => Self::F16,
            KvArg::F32 => Self::F32,
            KvArg::Q8_0 => Self::Q8_0,
            KvArg::Q4_0 => Self::Q4_0,
        }
    }
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Streaming => Self::Streaming,
            PolicyArg::Window => Self::Window,
            PolicyArg::Dense => Self::Dense,
            PolicyArg::Recompute => Self::Recompute,
            PolicyArg::HalfDiscard => Self::HalfDiscard,
        }
    }
}

#[derive(Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Which tokens attention looks back on
    #[arg(long, value_enum, default_value = "streaming")]
    policy: PolicyArg,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

impl CacheArgs {
    pub(crate) fn kernels(&self) -> KernelSettings {
        self.shape.kernels()
    }

    pub(crate) fn settings(&self, config: &Config) -> CacheSettings {
        self.shape.settings(config, self.policy.into())
    }
}

/// Policies to be compared.
#[derive(Args)]
pub(crate) struct PoliciesArgs {
    /// Which tokens attention looks back on; bench takes several with --cache, ppl in any case
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "streaming",
        help_heading = "Cache"
    )]
    policy: Vec<PolicyArg>,
}

impl PoliciesArgs {
    /// One at least.
    pub(crate) fn each(&self) -> impl Iterator<Item = Policy> {
        self.policy.iter().map(|&policy| policy.into())
    }

    pub(crate) fn is_one(&self) -> bool {
        self.policy.len() == 1
    }
}

/// A cache but for its policy.
#[derive(Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct ShapeArgs {
    /// First tokens that are kept for ever, or auto: as many as sinkscan has found that the model needs
    /// [default: 4 with streaming and half-discard, else 0]
    #[arg(long, value_name = "S|auto", value_parser = Sinks::parse, allow_negative_numbers = true)]
    pub(crate) sinks: Option<Sinks>,
    /// Recent tokens that a token sees, itself included [default: 1020, or what fills the model's
    /// trained context; with dense all of it]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub(crate) window: Option<usize>,
    /// Tokens that go through in one pass; changes speed, not results [default: 64, on GPUs
    /// up to 256, with ppl 128]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) chunk: Option<usize>,
    /// How keys and values are stored
    #[arg(long, value_enum, default_value = "f16")]
    kv: KvArg,
    #[command(flatten)]
    activations: ActivationsArgs,
}

impl ShapeArgs {
    /// What its kernels have to be compiled for.
    pub(crate) fn kernels(&self) -> KernelSettings {
        // Every command's own chunk is a long one.
        let chunk = self.chunk.unwrap_or(usize::MAX);
        KernelSettings::new(self.kv.into(), self.activations.chosen(), chunk)
    }

    pub(crate) fn settings(&self, config: &Config, policy: Policy) -> CacheSettings {
        let KernelSettings { kv, activations, .. } = self.kernels();
        let defaults = CacheSettings::for_model(config, policy);
        CacheSettings {
            sinks: self.sinks.map_or(defaults.sinks, |sinks| sinks.count(&defaults)),
            window: self.window.unwrap_or(defaults.window),
            chunk: self.chunk.unwrap_or(defaults.chunk),
            kv,
            activations,
            ..defaults
        }
    }
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) ids: IdsArgs,
    /// End after N tokens; -1: never
    #[arg(short, value_name = "N", default_value = "-1", allow_negative_numbers = true,
        value_parser = OrElse::<u64>::parse)]
    pub(crate) n: OrElse<u64>,
    /// End where the model ends its answer, instead of banning its end tokens
    #[arg(long)]
    pub(crate) stop_at_eos: bool,
    /// One JSON object a line: tokens, then a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress and no statistics
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) grammar: GrammarArgs,
    /// With --json: of each token the logarithm of its probability, and the same of the K likeliest
    #[arg(long, value_name = "K", requires = "json")]
    pub(crate) logprobs: Option<usize>,
    #[command(flatten)]
    pub(crate) saving: SaveArgs,
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
}

#[derive(Args)]
pub(crate) struct DevicesArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// A GGUF file, or a folder or a name as -m takes them
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
}

#[derive(Args)]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text
    #[arg(allow_hyphen_values = true, required_unless_present = "file")]
    pub(crate) text: Option<String>,
    /// A file with the text
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
    /// Ids and pieces as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) ids: IdsArgs,
    /// The logits after the tokens at these places, counted from 0, instead of after the last
    #[arg(long, value_name = "P,…", value_delimiter = ',')]
    pub(crate) positions: Vec<usize>,
    /// How many
    #[arg(long, value_name = "K", default_value_t = 10, allow_negative_numbers = true)]
    pub(crate) top: usize,
    /// [[id, logit], …]; with --positions [{"position", "logits": [[id, logit], …]}, …]
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) what: BenchMode,
    /// Runs; the figures are medians
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Tokens that are decoded and timed [default: 64; with --cache what fills it, and --laps laps of it, but 4
    /// with recompute]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) n: Option<u32>,
    /// Tokens of the prompt whose prefill is timed
    #[arg(long, value_name = "P", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prefill: u32,
    /// Tokens of context after which decoding is timed again [default: 1000]; with --counters and --profile,
    /// before what is measured [default: 16]
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) context: Option<u32>,
    /// Laps of the ring with --cache, after the cache is full
    #[arg(long, value_name = "L", default_value_t = 3)]
    pub(crate) laps: u32,
    /// Start from a cache that a prompt has filled; with --cache. Always so with recompute
    #[arg(long, requires = "cache")]
    pub(crate) prefilled: bool,
    /// Write a line for each token to FILE; with --cache
    #[arg(long, value_name = "FILE", requires = "cache")]
    pub(crate) csv: Option<PathBuf>,
    /// Draw the time of each token over the run into FILE, .svg or .png; with --cache
    #[arg(long, value_name = "FILE", requires = "cache")]
    pub(crate) tokens_chart: Option<PathBuf>,
    /// Draw the median time of a token against the size of the cache into FILE; with --cache
    #[arg(long, value_name = "FILE", requires = "cache")]
    pub(crate) sizes_chart: Option<PathBuf>,
    /// Sample (temperature 0.8, top-k 40) instead of taking the likeliest token
    #[arg(long)]
    pub(crate) sampled: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
    #[command(flatten)]
    policies: PoliciesArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

/// What is measured, if not speed as a whole.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct BenchMode {
    /// What a token costs: dispatches, submissions, bytes read, allocations
    #[arg(long)]
    pub(crate) counters: bool,
    /// The time of each kernel of a token, by the device's own clock where it has one
    #[arg(long)]
    pub(crate) profile: bool,
    /// The time of each token in caches of such sizes (sinks and window together)
    #[arg(long, value_name = "C,…", value_delimiter = ',', conflicts_with = "window")]
    pub(crate) cache: Vec<usize>,
    /// Tokens a second of such numbers of streams at once, whose steps share their passes
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) streams: Vec<u32>,
    /// All that a device is judged by, beside what its memory and its units do at most: JSON to FILE, a table for
    /// docs/performance.md to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) device: Option<PathBuf>,
    /// Draw what benches/peers/peers.mjs has measured
    #[arg(long, num_args = 2, value_names = ["JSON", "CHART"], hide = true)]
    pub(crate) peers_chart: Vec<PathBuf>,
}

impl BenchArgs {
    /// The policies asked for; one at least.
    pub(crate) fn policies(&self) -> impl Iterator<Item = Policy> {
        self.policies.each()
    }

    /// The one policy, where there can be only one.
    pub(crate) fn policy(&self) -> Result<Policy> {
        match self.policies.policy[..] {
            [policy] => Ok(policy.into()),
            _ => Err(Error::Usage("--policy: one of them, unless --cache is given".into())),
        }
    }

    pub(crate) fn sampling(&self) -> SamplerSettings {
        let temperature = if self.sampled { 0.8 } else { 0.0 };
        SamplerSettings { temperature, seed: 1, ..SamplerSettings::default() }
    }
}
