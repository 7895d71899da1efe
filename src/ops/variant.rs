//! Which of the kernels that compute the same a device runs.
use super::{ActivationType, ForFormats, Sums};
use crate::gpu::Gpu;

/// How products are shared out. Results differ by rounding alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Variant {
    /// How the lanes of a workgroup add up.
    pub sums: Sums,
    /// Rows of weights that a workgroup multiplies with one token: four, or, where a workgroup is one subgroup, many.
    pub rows: u32,
    /// A lane of a chunk's products owns tokens, not a share of the weights: where a workgroup is one subgroup.
    pub columns: bool,
    /// How products of one token take their activations. Never chosen for speed alone: bytes change the result.
    pub activations: ActivationType,
    /// A chunk's products and its attention go by tiles in workgroup memory: on GPUs.
    pub tiles: bool,
}

/// Rows of a workgroup on software drivers: what is read of activations is little beside them, and small matrices still
/// have a workgroup for every core.
pub(super) const MANY_ROWS: u32 = 48;

/// Rows of a workgroup that is one subgroup.
const ROWS: [u32; 4] = [4, 8, 16, MANY_ROWS];

impl Default for Variant {
    fn default() -> Self {
        Self::PLAIN
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sums = match self.sums {
            Sums::Shared => "sums in workgroup memory",
            Sums::Subgroup => "sums by subgroup",
        };
        let chunk = match self {
            Self { tiles: true, .. } => "a chunk goes by tiles",
            Self { columns: true, .. } => "lanes share out a chunk's tokens",
            _ => "lanes share out a chunk's weights",
        };
        write!(f, "{sums}, {} rows a workgroup, {chunk}", self.rows)
    }
}

impl Variant {
    /// What every device can run.
    pub const PLAIN: Self = Self {
        sums: Sums::Shared,
        rows: 4,
        columns: false,
        activations: ActivationType::F32,
        tiles: false,
    };

    /// What suits the kind of device.
    pub fn of(gpu: &Gpu) -> Self {
        let sums = Sums::of(gpu);
        let software = gpu.tier.cpu && sums == Sums::Subgroup;
        let rows = if software { MANY_ROWS } else { 4 };
        Self { sums, rows, columns: software, tiles: !gpu.tier.cpu, ..Self::PLAIN }
    }

    /// Whether this device can run it.
    pub fn runs_on(&self, gpu: &Gpu) -> bool {
        let able = Sums::of(gpu) == Sums::Subgroup;
        let rows = match self.sums {
            Sums::Shared => self.rows == 4,
            Sums::Subgroup => able && ROWS.contains(&self.rows),
        };
        rows && (able || !self.columns)
    }

    /// What is worth a try with one token: first what suits the kind of device.
    pub fn candidates(gpu: &Gpu) -> Vec<Self> {
        let first = Self::of(gpu);
        let subgroups = ROWS.map(|rows| Self { sums: Sums::Subgroup, rows, ..first });
        let plain = Self { sums: Sums::Shared, rows: 4, ..first };
        let mut all = vec![first];
        for other in subgroups.into_iter().chain([plain]) {
            if other.runs_on(gpu) && !all.contains(&other) {
                all.push(other);
            }
        }
        all
    }

    /// The sources of a kernel of one token, out of: with barriers, with subgroups, with many rows.
    pub(super) fn pick<T>(&self, [plain, subgroup, many]: [T; 3]) -> T {
        match (self.sums, self.rows) {
            (Sums::Shared, _) => plain,
            (Sums::Subgroup, 4) => subgroup,
            (Sums::Subgroup, _) => many,
        }
    }

    /// The same with the activations that are wanted: `bytes` for the types that have them, `floats` for the others.
    pub(super) fn sources(
        &self,
        floats: [ForFormats; 3],
        bytes: [ForFormats; 3],
    ) -> Vec<ForFormats> {
        let floats = self.pick(floats);
        match self.activations {
            ActivationType::F32 => vec![floats],
            ActivationType::Int8 => vec![self.pick(bytes), floats],
        }
    }

    /// Every variant that this device can run, for tests and measurements.
    pub fn all(gpu: &Gpu) -> Vec<Self> {
        let plain = Self::PLAIN;
        let tiles = Self { tiles: true, ..plain };
        if Sums::of(gpu) == Sums::Shared {
            return vec![plain, tiles];
        }
        let subgroup = Self { sums: Sums::Subgroup, ..plain };
        vec![plain, tiles, subgroup, Self { rows: 16, columns: true, ..subgroup }]
    }
}

/// Where a variant comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// What suits the kind of device.
    Class,
    /// A measurement at an earlier load.
    Kept,
    /// A measurement just now.
    Measured,
}

/// Which variant a model runs, and why.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Choice {
    /// What it runs.
    #[serde(flatten)]
    pub variant: Variant,
    /// Where that comes from.
    pub origin: Origin,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let origin = match self.origin {
            Origin::Class => "as suits the kind of device",
            Origin::Kept => "as measured at an earlier load",
            Origin::Measured => "as measured now",
        };
        write!(f, "{}; {origin}", self.variant)
    }
}
