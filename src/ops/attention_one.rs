//! The attention of one token, with what comes before it: turned, stored, attended to, in one dispatch, or in two
//! where the cache is split over workgroups.
use super::{FRAME, HeadShape, RingParams, Sums, expect_cache};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use futures_util::future::try_join;

/// `Params` of `shaders/attention_one.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AttentionOneParams {
    /// H
    pub heads: u32,
    /// KV
    pub kv_heads: u32,
    /// HD
    pub head_dim: u32,
    /// R, the dimensions of a head that are turned.
    pub rope_dim: u32,
    /// S, W and N.
    pub ring: RingParams,
    /// 1 / sqrt(HD)
    pub scale: f32,
    /// Workgroups that share out the cache: [`splits`].
    pub splits: u32,
}

/// `Params` of `shaders/attention_join.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AttentionJoinParams {
    /// H
    pub heads: u32,
    /// HD
    pub head_dim: u32,
    /// S + N
    pub stored: u32,
    /// Slots of a split.
    pub split: u32,
}

/// Slots of the cache that one workgroup has. The same for every cache, so that two that hold the same keys at the
/// same places give the same bits.
const SPLIT: u32 = 128;

/// Workgroups that share out a cache of this geometry.
pub fn splits(ring: RingParams) -> u32 {
    (ring.sinks + ring.slots).div_ceil(SPLIT)
}

/// Both kernels, where a workgroup is one subgroup that shares out a head's dimensions.
pub struct AttentionOne {
    one: Kernel,
    join: Kernel,
    group: u32,
    shape: HeadShape,
}

impl AttentionOne {
    /// The kernel that attends, and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "attention_one_subgroup",
        wgsl: wgsl!(
            "lib/ring.wgsl",
            "lib/rope.wgsl",
            "lib/unpack_half.wgsl",
            "lib/kv.wgsl",
            "lib/half.wgsl",
            "lib/kv_store.wgsl",
            "attention_one.wgsl"
        ),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<AttentionOneParams>() as u64,
        subgroups: true,
    };
    /// The kernel that makes one of several splits.
    pub const JOIN: KernelSource = KernelSource {
        name: "attention_join",
        wgsl: wgsl!("attention_join.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<AttentionJoinParams>() as u64,
        subgroups: false,
    };

    /// Whether the device and the shape can do without the plain kernels.
    pub fn fits(gpu: &Gpu, shape: HeadShape, sums: Sums) -> bool {
        let eights = shape.head_dim as u32 / 8;
        let shared_out = shape.head_dim.is_multiple_of(8) && eights.is_power_of_two();
        sums == Sums::Subgroup && shared_out && eights <= gpu.tier.lanes()
    }

    /// Compiles the kernels for heads of one shape and one layout of pairs, where they fit.
    pub async fn new(gpu: &Gpu, shape: HeadShape, neox: bool, sums: Sums) -> Result<Option<Self>> {
        if !Self::fits(gpu, shape, sums) {
            return Ok(None);
        }
        let lanes = gpu.tier.lanes();
        let group = shape.group_where(|_| true);
        let flag = |on| f64::from(u8::from(on));
        let overrides = [
            ("WG", f64::from(lanes)),
            ("KV_F16", flag(shape.kv_f16)),
            ("NEOX", flag(neox)),
            ("GROUP", group as f64),
            ("HEAD_DIM", shape.head_dim as f64),
            ("SPLIT", f64::from(SPLIT)),
            // A software driver reads workgroup memory lane by lane.
            ("QUERIES", flag(!gpu.tier.cpu)),
        ];
        let (one, join) = try_join(
            Kernel::new(gpu, Self::SOURCE, overrides),
            Kernel::new(gpu, Self::JOIN, overrides),
        )
        .await?;
        Ok(Some(Self { one, join, group: group as u32, shape }))
    }

    /// Workgroups that read each key and value.
    pub fn readers(&self) -> usize {
        self.shape.sharing / self.group as usize
    }

    /// Records the attention of the token whose products are in `qkv` [1, (H + 2 KV) HD] over the cache `k`, `v`
    /// [S + N, words], where its own come, into `out` [1, H HD]. `turns`: [S + 2N, R/2, 2]; `parts`: [splits, H, HD + 2].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        params: AttentionOneParams,
        [frame, qkv, turns, k, v, parts, out]: [&Tensor; 7],
    ) -> Result<()> {
        const OP: &str = "attention_one";
        let [heads, kv_heads, head_dim] =
            [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
        let (ring, count) = (params.ring, splits(params.ring));
        frame.expect(OP, [FRAME])?;
        qkv.expect(OP, [1, (heads + 2 * kv_heads) * head_dim])?;
        turns.expect(OP, [ring.phases(), params.rope_dim as usize / 2, 2])?;
        expect_cache(OP, ring, kv_heads * head_dim, self.shape.kv_f16, [k, v])?;
        parts.expect(OP, [count as usize, heads, head_dim + 2])?;
        out.expect(OP, [1, heads * head_dim])?;
        let HeadShape { head_dim: expected, sharing, .. } = self.shape;
        if head_dim != expected || heads != kv_heads * sharing || params.splits != count {
            return Err(
                out.misfit(OP, format!("HD = {expected}; H = {sharing} KV; {count} splits"))
            );
        }
        let one = if count == 1 { out } else { parts };
        let tensors = [frame, qkv, turns, k, v, one];
        let lanes = self.one.lanes();
        let eights = params.head_dim / 8;
        // A tile: scores by three queries at most, then values; what is left, by halves.
        let tile = 1 + 3 * eights + eights;
        let iterations = u64::from(SPLIT.div_ceil(lanes) * tile + 2 * lanes.ilog2() + 16);
        let work = Work { grid: [params.heads / self.group, count, 1], iterations };
        recording.dispatch(label, &self.one, params, &tensors, work)?;
        if count > 1 {
            let params = AttentionJoinParams {
                heads: params.heads,
                head_dim: params.head_dim,
                stored: ring.sinks + ring.slots,
                split: SPLIT,
            };
            let each = params.head_dim.div_ceil(self.join.lanes());
            let iterations = u64::from(count) + u64::from(each) * u64::from(1 + count);
            let work = Work { grid: [params.heads, 1, 1], iterations };
            let label = format!("{label}_join");
            recording.dispatch(label, &self.join, params, &[frame, parts, out], work)?;
        }
        Ok(())
    }
}
