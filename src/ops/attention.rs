//! Attention over sinks and ring.
use super::{FRAME, RingParams, WORKGROUP_MEMORY, expect_cache};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, wgsl};
use futures_util::future::try_join;

/// `Params` of `shaders/attention.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AttentionParams {
    /// H
    pub heads: u32,
    /// KV
    pub kv_heads: u32,
    /// HD
    pub head_dim: u32,
    /// S, W and N.
    pub ring: RingParams,
    /// 1 / sqrt(HD)
    pub scale: f32,
}

/// Softmax attention of every query over what the cache holds and its window shows.
pub struct Attention {
    /// Heads that share keys and values, `group` to a workgroup.
    grouped: Kernel,
    group: u32,
    /// One head to a workgroup: for one token on a GPU, which the groups would give too few.
    alone: Option<Kernel>,
    shape: HeadShape,
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// HD
    pub head_dim: usize,
    /// H / KV
    pub sharing: usize,
    /// Whether K and V are f16.
    pub kv_f16: bool,
}

impl HeadShape {
    /// The most heads that one workgroup can take on every device.
    fn group(&self, lanes: usize) -> usize {
        let queries_and_sums = 4 * self.head_dim * 4;
        self.group_where(|group| {
            group * queries_and_sums + 16 * (64 + lanes) <= WORKGROUP_MEMORY as usize
        })
    }

    /// The most heads that share keys and values and that `fits` lets into one workgroup.
    pub(super) fn group_where(&self, fits: impl Fn(usize) -> bool) -> usize {
        let usable = |&group: &usize| self.sharing.is_multiple_of(group) && fits(group);
        [4, 3, 2].into_iter().find(usable).unwrap_or(1)
    }
}

impl Attention {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "attention",
        wgsl: wgsl!("lib/ring.wgsl", "lib/kv.wgsl", "attention.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<AttentionParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel for heads of one shape. `decodes`: passes of one token come here too.
    pub async fn new(gpu: &Gpu, shape: HeadShape, decodes: bool) -> Result<Self> {
        let lanes = gpu.tier.lanes() as usize;
        let make = |group: usize| {
            let overrides = [
                ("WG", lanes as f64),
                ("KV_F16", f64::from(u8::from(shape.kv_f16))),
                ("GROUP", group as f64),
                ("HEAD_DIM", shape.head_dim as f64),
            ];
            Kernel::new(gpu, Self::SOURCE, overrides)
        };
        let group = shape.group(lanes);
        // On a CPU what counts is what is read.
        let alone = decodes && !gpu.tier.cpu && group > 1;
        let alone = async { if alone { make(1).await.map(Some) } else { Ok(None) } };
        let (grouped, alone) = try_join(make(group), alone).await?;
        Ok(Self { grouped, group: group as u32, alone, shape })
    }

    /// Workgroups that read each key and value, for each of `tokens`.
    pub fn readers(&self, tokens: usize) -> usize {
        match self.alone {
            Some(_) if tokens == 1 => self.shape.sharing,
            _ => self.shape.sharing / self.group as usize,
        }
    }

    /// Records the attention of `q` [T, 3, H HD] over `k`, `v` [S + N, words] into `out` [T, H HD].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: AttentionParams,
        [frame, q, k, v, out]: [&Tensor; 5],
    ) -> Result<()> {
        const OP: &str = "attention";
        let [heads, kv_heads, head_dim] =
            [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
        let [rows, _] = out.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        q.expect(OP, [rows, 3, heads * head_dim])?;
        expect_cache(OP, params.ring, kv_heads * head_dim, self.shape.kv_f16, [k, v])?;
        out.expect(OP, [rows, heads * head_dim])?;
        let HeadShape { head_dim: expected, sharing, .. } = self.shape;
        let fits = head_dim == expected && heads == kv_heads * sharing;
        if !fits || !head_dim.is_multiple_of(8) || head_dim > 256 {
            return Err(out.misfit(
                OP,
                format!("HD = {expected}, a multiple of 8, at most 256; H = {sharing} KV"),
            ));
        }
        let (kernel, group) = match &self.alone {
            Some(alone) if rows == 1 => (alone, 1),
            _ => (&self.grouped, self.group),
        };
        let grid = [params.heads / group, rows as u32, 1];
        recording.dispatch(label, kernel, params, &[frame, q, k, v, out], grid);
        Ok(())
    }
}
