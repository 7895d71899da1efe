//! Which device the user wants, and how its kernels are chosen.
use brooklet::gpu::{AdapterChoice, Class};
use brooklet::model::KernelSettings;
use brooklet::tune::Tune;
use clap::{Args, ValueEnum};

#[derive(Args)]
pub(crate) struct AdapterArgs {
    /// The GPU, by its index or a part of its name in `brooklet devices` [env: BROOKLET_ADAPTER]
    #[arg(long, value_name = "INDEX|NAME")]
    adapter: Option<String>,
    /// Open it as a device of another class: gpu32, gpu64, gpu-plain or gpu-subgroup [env: BROOKLET_AS]
    #[arg(long = "as", value_name = "CLASS", value_parser = Class::parse, hide = true)]
    class: Option<Class>,
    /// Measure once which kernels are the fastest here, and keep the answer in the cache folder
    #[arg(long, value_enum, default_value = "on")]
    tune: TuneArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum TuneArg {
    /// Unless there is an answer already
    On,
    /// Never: what suits the kind of device
    Off,
    /// In any case
    Again,
}

/// Which device, and how its kernels are chosen.
pub(crate) struct Wish {
    pub(crate) adapter: AdapterChoice,
    pub(crate) class: Class,
    pub(crate) tune: Tune,
    /// What its sessions will be like.
    pub(crate) kernels: KernelSettings,
}

impl Wish {
    pub(crate) fn with(self, kernels: KernelSettings) -> Self {
        Self { kernels, ..self }
    }
}

impl AdapterArgs {
    pub(crate) fn choice(&self) -> Wish {
        let adapter = self.adapter.as_deref().map_or(AdapterChoice::Best, AdapterChoice::parse);
        let tune = match self.tune {
            TuneArg::On => Tune::On,
            TuneArg::Off => Tune::Off,
            TuneArg::Again => Tune::Again,
        };
        Wish {
            adapter,
            class: self.class.unwrap_or_default(),
            tune,
            kernels: KernelSettings::default(),
        }
    }
}
