//! Which of the kernels that compute the same a device runs.
use super::Sums;
use crate::Result;
use crate::gpu::Gpu;

/// How products are shared out. Results differ by rounding alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Variant {
    /// How the lanes of a workgroup add up.
    pub sums: Sums,
    /// Rows of weights that a workgroup multiplies with one token: four, or, where a workgroup is one subgroup, many.
    pub rows: u32,
    /// A lane of a chunk's products owns tokens, not a share of the weights: where a workgroup is one subgroup.
    pub columns: bool,
}

/// Rows of a workgroup on software drivers: what is read of activations is little beside them, and small matrices still
/// have a workgroup for every core.
pub(super) const MANY_ROWS: u32 = 48;

impl Variant {
    /// What every device can run.
    pub const PLAIN: Self = Self { sums: Sums::Shared, rows: 4, columns: false };

    /// What suits the kind of device. What it can do is tried out.
    pub async fn of(gpu: &Gpu) -> Result<Self> {
        let sums = Sums::of(gpu).await?;
        let software = gpu.tier.cpu && sums == Sums::Subgroup;
        Ok(Self { sums, rows: if software { MANY_ROWS } else { 4 }, columns: software })
    }

    /// The sources of a kernel of one token, out of: with barriers, with subgroups, with many rows.
    pub(super) fn pick<'a, T: ?Sized>(&self, [plain, subgroup, many]: &[&'a T; 3]) -> &'a T {
        match (self.sums, self.rows) {
            (Sums::Shared, _) => plain,
            (Sums::Subgroup, 4) => subgroup,
            (Sums::Subgroup, _) => many,
        }
    }

    /// Every variant that this device can run, for tests and measurements.
    pub async fn all(gpu: &Gpu) -> Result<Vec<Self>> {
        let plain = Self::PLAIN;
        if Sums::of(gpu).await? == Sums::Shared {
            return Ok(vec![plain]);
        }
        let subgroup = Self { sums: Sums::Subgroup, ..plain };
        Ok(vec![plain, subgroup, Self { rows: 16, columns: true, ..subgroup }])
    }
}
