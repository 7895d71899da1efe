//! What other engines do when a cache is full: throw the older part away, move the rest to its place.
use super::{KvType, RingParams, expect_cache, expect_turns};
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use crate::{Error, Result};

/// Workgroups a head at most: fewer than every device has in one dimension.
const MOST_LINES: u32 = 1 << 14;

/// `Params` of `shaders/shift.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ShiftParams {
    /// KV
    pub kv_heads: u32,
    /// R, the dimensions of a head that are turned.
    pub rope_dim: u32,
    /// S
    pub sinks: u32,
    /// Slots that are thrown away.
    pub shift: u32,
    /// Slots that move.
    pub kept: u32,
    /// Workgroups a head.
    pub lines: u32,
}

impl ShiftParams {
    /// For a full cache of which the older half goes, its sinks excepted.
    pub fn half(ring: RingParams, kv_heads: u32, rope_dim: u32) -> Self {
        let shift = ring.window / 2;
        let (kept, lines) = (ring.window - shift, shift.min(MOST_LINES));
        Self { kv_heads, rope_dim, sinks: ring.sinks, shift, kept, lines }
    }
}

/// Moves keys and values down.
pub struct Shift {
    kernel: Kernel,
    head_dim: usize,
    kv: KvType,
}

impl Shift {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "shift",
        wgsl: wgsl!("lib/half.wgsl", "lib/unpack_half.wgsl", "shift.wgsl"),
        bindings: &[Access::Read, Access::Write, Access::Write],
        params_size: size_of::<ShiftParams>() as u64,
        subgroups: false,
    };

    /// An error unless keys of this type can be turned where they are stored.
    pub fn expect(kv: KvType) -> Result<()> {
        match kv.in_blocks() {
            false => Ok(()),
            true => Err(Error::Setting {
                which: "kv",
                found: kv.name().to_owned(),
                works: "half-discard turns stored keys back, which would round these once more each time; f16 or f32 \
                        works with it, and streaming, which turns a key once, takes every type"
                    .into(),
            }),
        }
    }

    /// Compiles the kernel for heads of one size, one layout of pairs and one type of K and V.
    pub async fn new(gpu: &Gpu, head_dim: usize, neox: bool, kv: KvType) -> Result<Self> {
        Self::expect(kv)?;
        let flag = |on| f64::from(u8::from(on));
        let overrides = [
            ("WG", f64::from(gpu.tier.lanes())),
            ("HEAD_DIM", head_dim as f64),
            ("NEOX", flag(neox)),
            ("KV_F16", kv.is_f16()),
        ];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await?, head_dim, kv })
    }

    /// Records the move in `k` and `v` [S + N, words]. `turns`: [S + 2N, R/2, 2].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        ring: RingParams,
        params: ShiftParams,
        [turns, k, v]: [&Tensor; 3],
    ) -> Result<()> {
        const OP: &str = "shift";
        expect_turns(OP, ring, params.rope_dim, turns)?;
        expect_cache(OP, ring, [params.kv_heads as usize, self.head_dim], self.kv, [k, v])?;
        if params.shift == 0 || params.shift + params.kept > ring.slots {
            let expected = format!("{} slots and {} that go", params.kept, params.shift);
            return Err(k.misfit(OP, expected));
        }
        let head = 1 + 2 * (self.head_dim as u32).div_ceil(2 * self.kernel.lanes());
        let line = 1 + params.kept.div_ceil(params.shift) * head;
        let iterations = u64::from(params.shift.div_ceil(params.lines)) * u64::from(line);
        let work = Work { grid: [params.kv_heads, params.lines, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &[turns, k, v], work)
    }
}
