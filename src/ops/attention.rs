//! Attention over sinks and ring.
use super::matmul::Most;
use super::{FRAME, ForKv, HEAD_TERMS, KvType, RingParams, Sums, WORKGROUP_MEMORY, expect_cache};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, Loops, MOST_ITERATIONS, Recording, Tensor, Work};
use crate::shaders::files;

/// `Params` of every kernel around the cache: `shaders/lib/attention_params.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AttentionParams {
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
    /// What scores are kept below: `cap * tanh(score / cap)`; 0 where they are not.
    pub cap: f32,
    /// 1 where sinks are forgotten like other tokens, whatever the frame says: the window is one that a layer was trained
    /// with, not the policy's.
    pub forgets: u32,
    /// The first slot that a dispatch looks at. An op fills it in.
    pub first: u32,
    /// Slots that a dispatch looks at, or, of one token, a workgroup. An op fills it in: a cache is looked through in
    /// spans of slots, so that no invocation loops too long.
    pub span: u32,
    /// Slots from the first of one stream to that of the next, where several have their keys and values in one tensor.
    pub stride: u32,
}

/// What a span of slots leaves to the next, of each query: [T, H, this].
pub fn carried(head_dim: usize) -> usize {
    2 * head_dim.div_ceil(TILE_DIMS)
}

impl AttentionParams {
    /// H, KV and HD.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.heads, self.kv_heads, self.head_dim].map(|n| n as usize)
    }
}

/// Softmax attention of every query over what the cache holds and its window shows.
pub struct Attention {
    chunk: Way,
    shape: HeadShape,
    most: Most,
    /// Of tests alone: spans are this long.
    pub(crate) span: Option<u32>,
}

/// How queries share what is read of keys and values.
enum Way {
    /// So many heads of a token that share them; 1 where more would leave too few workgroups.
    Heads(Kernel, u32),
    /// So many queries of neighbouring tokens and all heads that share them: by tiles, or by columns.
    Tiles(Kernel),
    Columns(Kernel, usize),
}

impl Way {
    /// Loop iterations: outside of the tiles, and of a tile; and how many slots that has.
    fn iterations(&self, head_dim: u32) -> ([u64; 2], u32) {
        let eights = head_dim / 8;
        let (once, tile, slots) = match self {
            Self::Heads(kernel, group) => {
                let lanes = kernel.lanes();
                let (keys, sums) = (64u32.div_ceil(lanes), eights.div_ceil(lanes));
                let once = (3 * group * 2 * eights).div_ceil(lanes)
                    + 2 * (group * eights).div_ceil(lanes)
                    + 2 * group;
                (once, 1 + keys * (1 + eights) + keys + 2 * lanes + sums * (1 + 64), 64)
            }
            Self::Tiles(_) => (
                16 + 4,
                1 + 3 * (1 + 2 * eights) + 16 + head_dim.min(TILE_DIMS as u32).div_ceil(64) * 32,
                32,
            ),
            // What is not seen, scores by three queries, values.
            Self::Columns(..) => (0, 1 + 64 + 3 * (1 + 64) + 64, 64),
        };
        ([once, tile].map(u64::from), slots)
    }

    /// Workgroups of so few tokens that a pass need not have fewer, where `sharing` queries share each of so many heads of
    /// keys.
    fn fewest_groups(&self, kv_heads: u32, sharing: usize) -> u64 {
        let each = match self {
            Self::Heads(_, group) => 16 * sharing / *group as usize,
            Self::Tiles(_) => 64 * sharing / TILE_QUERIES,
            Self::Columns(kernel, each) => 8 * kernel.lanes() as usize * sharing / each,
        };
        u64::from(kv_heads) * each.max(1) as u64
    }
}

/// Which kernel a chunk goes through. They compute the same and differ by rounding alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkAttention {
    /// A token and a few heads a workgroup: what every device can run.
    Heads,
    /// By tiles in workgroup memory: on GPUs.
    Tiles,
    /// A lane owns queries: on software drivers, where a workgroup is one subgroup.
    Columns,
}

impl ChunkAttention {
    /// What suits a device. `tiles`: whether chunks go by tiles there.
    pub fn of(gpu: &Gpu, shape: HeadShape, sums: Sums, tiles: bool) -> Self {
        match tiles {
            true => Self::Tiles,
            false if gpu.tier.cpu && Self::Columns.fits(gpu, shape, sums) => Self::Columns,
            false => Self::Heads,
        }
    }

    /// Whether a device can run it for heads of this shape.
    pub fn fits(self, gpu: &Gpu, shape: HeadShape, sums: Sums) -> bool {
        let lanes = gpu.tier.lanes();
        match self {
            Self::Heads | Self::Tiles => true,
            // Scores fill workgroup memory.
            Self::Columns => {
                sums == Sums::Subgroup
                    && (4..=16).contains(&lanes)
                    && [64, 128].contains(&shape.head_dim)
            }
        }
    }
}

/// Dimensions that a head may have.
pub const MOST_HEAD_DIM: usize = 512;
/// Queries of a workgroup of `shaders/attention_tiles.wgsl`.
const TILE_QUERIES: usize = 32;
/// Dimensions of the values of a workgroup of `shaders/attention_tiles.wgsl`.
const TILE_DIMS: usize = 256;
/// Dimensions of the queries that a lane of `shaders/attention_columns.wgsl` owns.
const LANE_DIMS: usize = 256;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// HD
    pub head_dim: usize,
    /// H / KV
    pub sharing: usize,
    /// How K and V are stored.
    pub kv: KvType,
    /// Whether scores fall with distance, by each head's slope (ALiBi).
    pub alibi: bool,
    /// Whether scores are kept below a cap.
    pub capped: bool,
}

impl HeadShape {
    /// The most heads that one workgroup can take on every device.
    fn group(&self, lanes: usize) -> usize {
        let queries_and_sums = 4 * self.head_dim * 4;
        self.group_where(|group| {
            group * queries_and_sums + 16 * (64 + lanes) <= WORKGROUP_MEMORY as usize
        })
    }

    /// An error unless the kernels of this shape suit `params`; `tensor` is what it tells of.
    pub(super) fn expect(
        &self,
        op: &'static str,
        params: AttentionParams,
        tensor: &Tensor,
    ) -> Result<()> {
        let [heads, kv_heads, head_dim] = params.shape();
        let Self { head_dim: expected, sharing, capped, .. } = *self;
        self.kv.expect_heads(head_dim)?;
        let suits = head_dim == expected && heads == kv_heads * sharing;
        if capped != (params.cap > 0.0) {
            let (is, wants) = match capped {
                true => ("", "above 0"),
                false => ("not ", "0"),
            };
            let why = format!("a cap of {wants}, as its kernels are {is}made for one");
            return Err(tensor.misfit(op, why));
        }
        match suits && head_dim.is_multiple_of(8) && head_dim <= MOST_HEAD_DIM {
            true => Ok(()),
            false => Err(tensor.misfit(
                op,
                format!(
                    "HD = {expected}, a multiple of 8, at most {MOST_HEAD_DIM}; H = {sharing} KV"
                ),
            )),
        }
    }

    /// The overrides that depend on nothing else.
    pub(super) fn overrides(&self) -> [(&'static str, f64); 4] {
        let flag = |on| f64::from(u8::from(on));
        [
            ("KV_F16", self.kv.is_f16()),
            ("HEAD_DIM", self.head_dim as f64),
            ("ALIBI", flag(self.alibi)),
            ("CAPPED", flag(self.capped)),
        ]
    }

    /// The most heads that share keys and values and that `fits` lets into one workgroup.
    pub(super) fn group_where(&self, fits: impl Fn(usize) -> bool) -> usize {
        let usable = |&group: &usize| self.sharing.is_multiple_of(group) && fits(group);
        [4, 3, 2].into_iter().find(usable).unwrap_or(1)
    }
}

impl Attention {
    /// The kernel and its bindings.
    pub const SOURCES: ForKv = ForKv {
        stem: "attention",
        suffix: "",
        libraries: files!["lib/attention_params.wgsl", "lib/score.wgsl", "lib/ring.wgsl"],
        floats: ForKv::READ[0],
        blocks: ForKv::READ[1],
        file: files!["attention.wgsl"],
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<AttentionParams>() as u64,
        subgroups: false,
    };

    /// The same for the tokens of a chunk, by tiles.
    pub const TILES: ForKv = ForKv {
        stem: "attention_tiles",
        libraries: files![
            "lib/attention_params.wgsl",
            "lib/score.wgsl",
            "lib/ring.wgsl",
            "lib/kinds.wgsl",
            "lib/onto.wgsl",
        ],
        file: files!["attention_tiles.wgsl"],
        ..Self::SOURCES
    };

    /// The same for software drivers.
    pub const COLUMNS: ForKv = ForKv {
        stem: "attention_columns",
        suffix: "_subgroup",
        libraries: files![
            "lib/attention_params.wgsl",
            "lib/score.wgsl",
            "lib/ring.wgsl",
            "lib/kinds.wgsl",
        ],
        file: files!["attention_columns.wgsl"],
        subgroups: true,
        ..Self::SOURCES
    };

    /// Compiles the kernel for heads of one shape. `way`: how a chunk goes.
    pub async fn new(gpu: &Gpu, shape: HeadShape, way: ChunkAttention) -> Result<Self> {
        let lanes = gpu.tier.lanes() as usize;
        let make = |sources: ForKv, group: usize| {
            let own = [("WG", lanes as f64), ("GROUP", group as f64)];
            Kernel::new(gpu, sources.of(shape.kv), [&own[..], &shape.overrides()].concat())
        };
        let group = shape.group(lanes);
        let chunk = match way {
            ChunkAttention::Heads => Way::Heads(make(Self::SOURCES, group).await?, group as u32),
            ChunkAttention::Tiles => Way::Tiles(make(Self::TILES, 1).await?),
            ChunkAttention::Columns => {
                let queries = LANE_DIMS / shape.head_dim * lanes;
                Way::Columns(make(Self::COLUMNS, 1).await?, queries)
            }
        };
        Ok(Self { chunk, shape, most: Most::of(gpu), span: None })
    }

    /// Workgroups that read each key and value in a pass of so many tokens.
    pub fn readers(&self, tokens: usize) -> usize {
        match &self.chunk {
            Way::Heads(_, group) => tokens * self.shape.sharing / *group as usize,
            Way::Tiles(_) => (tokens * self.shape.sharing).div_ceil(TILE_QUERIES),
            Way::Columns(_, each) => (tokens * self.shape.sharing).div_ceil(*each),
        }
    }

    /// Records the attention of `q` [T, 3, H HD] over `k`, `v` [S + N, words] into `out` [T, H HD]. `carry` [T, H, 2
    /// ceil(HD/256)] has what one span leaves to the next; `terms` [H, 4] what [`head_terms`](super::head_terms) gives.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: AttentionParams,
        [frame, q, k, v, out, carry, terms]: [&Tensor; 7],
    ) -> Result<()> {
        const OP: &str = "attention";
        let [heads, kv_heads, head_dim] = params.shape();
        let [rows, _] = out.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        q.expect(OP, [rows, 3, heads * head_dim])?;
        expect_cache(OP, params.ring, [kv_heads, head_dim], self.shape.kv, [k, v])?;
        out.expect(OP, [rows, heads * head_dim])?;
        carry.expect(OP, [rows, heads, carried(head_dim)])?;
        terms.expect(OP, [heads, HEAD_TERMS])?;
        self.shape.expect(OP, params, out)?;
        let sharing = self.shape.sharing;
        let way = &self.chunk;
        let (kernel, grid) = match way {
            Way::Heads(kernel, group) => (kernel, [params.heads / group, rows as u32, 1]),
            Way::Tiles(kernel) => {
                let parts = head_dim.div_ceil(TILE_DIMS) as u32;
                let teams = (rows * sharing).div_ceil(TILE_QUERIES) as u32;
                (kernel, [teams, params.kv_heads, parts])
            }
            Way::Columns(kernel, each) => {
                (kernel, [(rows * sharing).div_ceil(*each) as u32, params.kv_heads, 1])
            }
        };
        let ([once, tile], slots) = way.iterations(head_dim as u32);
        // The same for every cache, so that two that hold the same keys at the same places give the same bits.
        let most = u32::try_from((MOST_ITERATIONS - once) / tile).unwrap_or(u32::MAX);
        let groups = way.fewest_groups(params.kv_heads, sharing);
        let bounded = u32::try_from(self.most.groups(groups * tile)).unwrap_or(u32::MAX);
        let span = self.span.unwrap_or(most.min(bounded).saturating_mul(slots));
        let (label, stored) = (label.into(), params.ring.sinks + params.ring.slots);
        for first in (0..stored).step_by(span as usize) {
            let end = stored.min(first.saturating_add(span));
            let tiles = (end - first).div_ceil(slots);
            let work = Work { grid, iterations: once + tile * u64::from(tiles) };
            let params = AttentionParams { first, span, ..params };
            let label = if first == 0 { label.clone() } else { format!("{label}_from_{first}") };
            let tensors = [frame, q, k, v, terms, out, carry];
            recording.dispatch(label, kernel, params, &tensors, work)?;
            recording.loops(Loops::Slots { first, end });
        }
        Ok(())
    }
}
