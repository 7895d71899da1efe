//! The one error type of the crate. Every message is a sentence: what was wrong, where, and what to do.

/// Everything that can go wrong, each handled once: where it is shown to the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits the request.
    #[error("no GPU adapter: {0}")]
    NoAdapter(String),
    /// The adapter is there, but gave no device.
    #[error("the adapter refused a device: {0}")]
    NoDevice(String),
    /// The device went away while it was in use.
    #[error("the GPU device was lost: {0}")]
    DeviceLost(String),
    /// A buffer did not fit; `advice` names a smaller choice that would.
    #[error("out of GPU memory: {what} needs {needed} bytes; {advice}")]
    OutOfMemory {
        /// What was being made room for.
        what: String,
        /// Bytes asked for.
        needed: u64,
        /// What to do about it.
        advice: String,
    },
    /// A cache does not fit. `tries` are settings that would do, each for itself.
    #[error("{}", self.worded(str::to_owned))]
    NoRoom {
        /// What was being made room for.
        what: String,
        /// Bytes that it takes together.
        needed: u64,
        /// Settings by the names that the library has for them, and values that work.
        tries: Vec<(&'static str, String)>,
    },
    /// A shader or pipeline was refused by the driver.
    #[error("{kernel}: {detail}")]
    Kernel {
        /// The kernel's name.
        kernel: &'static str,
        /// What the driver said.
        detail: String,
    },
    /// An op was given a tensor of the wrong shape.
    #[error("{op}: {tensor} has shape {found:?}, expected {expected}")]
    Shape {
        /// The op that was asked.
        op: &'static str,
        /// The tensor's label.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the op takes.
        expected: String,
    },
    /// A copy from the GPU to the host failed.
    #[error("reading {0} back from the GPU: {1}")]
    Readback(String, String),
    /// A model file breaks its format's rules.
    #[error("{file}: byte {offset}: {detail}")]
    Format {
        /// The file's name as the user gave it.
        file: String,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What was found there, and what was wanted.
        detail: String,
    },
    /// The file is sound, but asks for something this engine does not do.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The tokenizer could not be built or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template cannot be read, or refuses a conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// A grammar cannot be used, or an output cannot go on as it wants.
    #[error("{0}")]
    Grammar(String),
    /// What a model computes is infinite or not a number. The sentence begins with what.
    #[error("{0}: the model's file is damaged, or its numbers are beyond this engine")]
    NotNumbers(String),
    /// A setting has a value that cannot work.
    #[error("{}", self.worded(str::to_owned))]
    Setting {
        /// The setting, by the name that the library has for it.
        which: &'static str,
        /// Its value.
        found: String,
        /// What works, and why.
        works: String,
    },
    /// A model could not be fetched.
    #[error("{name}: {detail}")]
    Fetch {
        /// The model or the address, as the user gave it.
        name: String,
        /// What was wrong, and what to do.
        detail: String,
    },
    /// What was asked for cannot be done, whatever the model.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused to read or write.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The message, with `named` giving each setting the name that it has where the message is shown.
    pub fn worded(&self, named: impl Fn(&str) -> String) -> String {
        match self {
            Self::Setting { which, found, works } => format!("{} {found}: {works}", named(which)),
            Self::NoRoom { what, needed, tries } => {
                let tries: Vec<_> = tries
                    .iter()
                    .map(|(which, value)| format!("{} {value}", named(which)))
                    .collect();
                let advice = match tries.is_empty() {
                    true => "no smaller one fits either".to_owned(),
                    false => format!("try {}", tries.join(" or ")),
                };
                format!("out of GPU memory: {what} needs {needed} bytes; {advice}")
            }
            Self::Template(_) => format!("{self}; {} gives another", named("chat_template")),
            other => other.to_string(),
        }
    }

    /// Whether another way of asking would do: what failed is neither the model nor the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Setting { .. } | Self::Grammar(_))
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
