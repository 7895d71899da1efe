//! Which caches are measured, one after another, and which tokens are a sample.
use super::measure::Text;
use super::{PplArgs, SampleArgs};
use brooklet::model::{CacheSettings, Config, Policy};
use brooklet::{Error, Result};
use std::ops::Range;

/// Tokens of a pass: the matrices are read once for all of them.
const CHUNK: usize = 128;
/// What the logits of a chunk may take on the device.
const MOST_LOGITS: usize = 64 << 20;
/// Tokens of a sample.
const POSITIONS: usize = 64;

/// One setting, several values.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    of: Swept,
    values: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Swept {
    Sinks,
    Window,
}

impl Sweep {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "sinks=0,1,2,4,8 or window=256,512 is what it takes";
        let (name, values) = text.split_once('=').ok_or(FORM)?;
        let of = match name {
            "sinks" => Swept::Sinks,
            "window" => Swept::Window,
            _ => return Err(FORM.into()),
        };
        let number = |value: &str| value.trim().parse::<u32>().map(|n| n as usize);
        let values = values.split(',').map(number).collect::<Result<_, _>>();
        Ok(Self { of, values: values.map_err(|_| FORM)? })
    }

    /// The settings with one value after the other in them.
    fn over(&self, settings: CacheSettings) -> Result<Vec<CacheSettings>> {
        let whole = settings.sinks + settings.window;
        let with = |&value: &usize| match self.of {
            Swept::Window => Ok(CacheSettings { window: value, ..settings }),
            Swept::Sinks if value < whole => {
                Ok(CacheSettings { sinks: value, window: whole - value, ..settings })
            }
            Swept::Sinks => Err(Error::Usage(format!(
                "--sweep sinks={value}: a cache of {whole} tokens has no room for a window then"
            ))),
        };
        self.values.iter().map(with).collect()
    }
}

/// `A-B`.
pub(super) fn span(text: &str) -> Result<Range<usize>, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok().map(|n| n as usize);
    let range = text.split_once('-').and_then(|(a, b)| Some(number(a)?..number(b)?));
    range.filter(|range| !range.is_empty()).ok_or_else(|| "0-2048 is what it takes".into())
}

/// A cache for every policy and every value of the sweep, all of them checked.
pub(super) fn plans(args: &PplArgs, config: &Config, text: &Text) -> Result<Vec<CacheSettings>> {
    let mut plans = Vec::new();
    for policy in args.policies.each() {
        for mut settings in swept(args, policy, base(args, config, policy))? {
            if policy == Policy::Dense {
                settings.window = context(args, config, settings.window).min(text.fed());
            }
            settings.geometry()?;
            warn(args, config, settings);
            plans.push(settings);
        }
    }
    Ok(plans)
}

/// What was asked for, as it is for one of the policies. Beside others, a cache without sinks sees as many tokens more.
fn base(args: &PplArgs, config: &Config, policy: Policy) -> CacheSettings {
    let fits = CHUNK.min(MOST_LOGITS / (4 * config.n_vocab)).max(1);
    let chunk = args.shape.chunk.unwrap_or(fits);
    let own = CacheSettings { chunk, ..args.shape.settings(config, policy) };
    if args.policies.is_one() || policy.has_sinks() {
        return own;
    }
    let other = args.shape.settings(config, Policy::Streaming);
    let window = if policy == Policy::Dense { own.window } else { other.sinks + other.window };
    CacheSettings { sinks: 0, window, ..own }
}

/// The caches of one policy. What a policy has not, it has no values of.
fn swept(args: &PplArgs, policy: Policy, base: CacheSettings) -> Result<Vec<CacheSettings>> {
    let Some(sweep) = &args.sweep else { return Ok(vec![base]) };
    let has = match sweep.of {
        Swept::Sinks => policy.has_sinks(),
        Swept::Window => policy != Policy::Dense,
    };
    match (has, args.policies.is_one()) {
        (true, _) => sweep.over(base),
        (false, true) => Err(Error::Usage(
            "--sweep: dense has no window, and window and recompute have no sinks to change".into(),
        )),
        (false, false) => Ok(vec![base]),
    }
}

/// Tokens that a dense cache is to hold.
fn context(args: &PplArgs, config: &Config, window: usize) -> usize {
    match (args.context, args.policies.is_one()) {
        (Some(context), _) => context as usize,
        (None, true) => window,
        (None, false) => config.n_ctx,
    }
}

fn warn(args: &PplArgs, config: &Config, settings: CacheSettings) {
    let reach = settings.sinks + settings.window;
    if reach > config.n_ctx && !args.json {
        eprintln!(
            "brooklet: a cache of {reach} tokens, and the model was trained on {}; expect worse beyond",
            config.n_ctx
        );
    }
}

impl SampleArgs {
    /// Tokens out of `1..=tokens`; none where nobody asks for a sample.
    pub(super) fn indices(&self, plans: &[CacheSettings], tokens: usize) -> Result<Vec<usize>> {
        let recomputes = plans.iter().any(|plan| plan.policy == Policy::Recompute);
        if !recomputes && self.positions.is_none() && self.every.is_none() {
            return Ok(Vec::new());
        }
        let caches = plans.iter().filter(|plan| plan.policy != Policy::Dense);
        let fills = caches.map(|plan| plan.sinks + plan.window).max().unwrap_or(0);
        let after = match self.after {
            Some(after) if after as usize >= tokens => {
                return Err(Error::Usage(format!(
                    "--after {after}: there are {tokens} tokens to predict"
                )));
            }
            Some(after) => after as usize,
            None if fills < tokens => fills,
            None => 0,
        };
        let left = tokens - after;
        Ok(match self.every {
            Some(every) => {
                (after + 1..=tokens).skip(every as usize - 1).step_by(every as usize).collect()
            }
            None => {
                let count = self.positions.map_or(POSITIONS, |n| n as usize).min(left);
                (1..=count).map(|i| after + i * left / count).collect()
            }
        })
    }
}
