//! The attention of one token, with what comes before it: turned, stored, attended to, in one dispatch, or in two
//! where the cache is split over workgroups.
use super::{
    AttentionParams, FRAME, FRAME_ROW, ForKv, HEAD_TERMS, HeadShape, RingParams, Sums,
    WORKGROUP_MEMORY, expect_cache, expect_turns,
};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Loops, Recording, Tensor, Work, wgsl};
use crate::shaders::files;
use futures_util::future::try_join;

/// Slots of the cache that one workgroup has. The same for every cache, so that two that hold the same keys at the
/// same places give the same bits.
const SPLIT: u32 = 128;

/// Workgroups that share out a cache of this geometry.
pub fn splits(ring: RingParams) -> u32 {
    (ring.sinks + ring.slots).div_ceil(SPLIT)
}

/// Both kernels, compiled for heads of one shape.
pub struct AttentionOne {
    one: Kernel,
    join: Kernel,
    plan: Plan,
    shape: HeadShape,
}

/// How a workgroup shares out its split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) source: KernelSource,
    /// Lanes of a workgroup.
    pub(crate) lanes: u32,
    /// Heads that share what is read.
    pub(crate) group: u32,
    /// Values that are added up side by side.
    pub(crate) teams: u32,
    /// How often a lane has eight dimensions.
    pub(crate) pieces: u32,
    /// What a lane asks for at once.
    pub(crate) step: u32,
    /// Lanes have queries and weights from one another's registers.
    pub(crate) shuffled: bool,
}

impl Plan {
    /// What suits a device of so many lanes a workgroup. `cpu`: a software driver; `sums`: how its lanes may add up.
    pub(crate) fn of(lanes: u32, cpu: bool, shape: HeadShape, sums: Sums) -> Self {
        let eights = (shape.head_dim / 8) as u32;
        let whole = sums == Sums::Subgroup && (cpu || eights <= lanes);
        // Where a workgroup is more than one subgroup, it may as well have a lane for every eight dimensions.
        let lanes = if whole { lanes } else { lanes.max(eights.next_power_of_two()) };
        let teams = (lanes / eights).max(1);
        let shuffled = whole && cpu;
        let group = shape.group_where(|group| {
            let own = if shape.kv.in_blocks() { 8 * shape.head_dim as u32 } else { 0 };
            let (group, reduced) = (group as u32, 16 * (lanes + lanes / lanes.min(8)));
            let scores = 4 * group * SPLIT;
            32 * (group * eights).max(lanes) + scores + reduced + own <= WORKGROUP_MEMORY
        }) as u32;
        Self {
            source: if whole { AttentionOne::SUBGROUP } else { AttentionOne::SOURCES }.of(shape.kv),
            lanes,
            group,
            // Weights go round in whole turns.
            teams: if shuffled { 1 << teams.ilog2() } else { teams },
            pieces: eights.div_ceil(lanes),
            step: match eights {
                // A software driver gains nothing by waiting for several at once.
                _ if cpu => 1,
                // What is in flight takes registers, which the sums of several heads have need of.
                eights if eights.is_multiple_of(4) && group == 1 => 4,
                eights if eights.is_multiple_of(2) => 2,
                _ => 1,
            },
            shuffled,
        }
    }

    fn overrides(&self, shape: HeadShape) -> Vec<(&'static str, f64)> {
        let own = [
            ("WG", f64::from(self.lanes)),
            ("GROUP", f64::from(self.group)),
            ("SPLIT", f64::from(SPLIT)),
            ("TEAMS", f64::from(self.teams)),
            ("PIECES", f64::from(self.pieces)),
            ("STEP", f64::from(self.step)),
            ("ROOM", f64::from((self.group * shape.head_dim as u32 / 8).max(self.lanes))),
            ("SHUFFLED", f64::from(u8::from(self.shuffled))),
            ("OWN", (shape.head_dim / 4) as f64),
        ];
        [&own[..], &shape.overrides()].concat()
    }

    /// Loop iterations of one invocation, of which the scores of a split may take one turn more for each of three queries.
    fn iterations(&self, head_dim: u32) -> u64 {
        let Self { lanes, group, teams, pieces, step, .. } = *self;
        let eights = head_dim / 8;
        let queries = 3 * (1 + (group * eights).div_ceil(lanes));
        let scores = (SPLIT / lanes + 2) * (pieces + eights / step) + 4 * pieces;
        let reductions = 3 * (lanes.min(8) + lanes / lanes.min(8));
        let values = SPLIT.div_ceil(teams * step) + SPLIT / lanes + group * teams;
        let values = pieces * (1 + values);
        // Where the token's own are staged in workgroup memory.
        let own = eights.div_ceil(lanes) + (eights / 2).div_ceil(lanes);
        u64::from(queries + scores + reductions + SPLIT / lanes + values + own)
    }
}

impl AttentionOne {
    /// The kernel that attends, and its bindings.
    pub const SOURCES: ForKv = ForKv {
        stem: "attention_one",
        suffix: "",
        libraries: files![
            "lib/attention_params.wgsl",
            "lib/frame.wgsl",
            "lib/score.wgsl",
            "lib/ring.wgsl",
            "lib/rope.wgsl",
            "lib/half.wgsl",
            "lib/reduce4.wgsl",
            "lib/lanes.wgsl",
        ],
        floats: files![
            "lib/eight.wgsl",
            "lib/unpack_half.wgsl",
            "lib/kv.wgsl",
            "lib/kv_store.wgsl"
        ],
        blocks: files![
            "lib/eight.wgsl",
            "lib/unpack_half.wgsl",
            "lib/kv_blocks.wgsl",
            "lib/kv_blocks_store.wgsl",
        ],
        file: files!["attention_one.wgsl"],
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<AttentionParams>() as u64,
        subgroups: false,
    };
    /// The kernel that attends, where a workgroup is one subgroup.
    pub const SUBGROUP: ForKv = ForKv {
        suffix: "_subgroup",
        libraries: files![
            "lib/attention_params.wgsl",
            "lib/frame.wgsl",
            "lib/score.wgsl",
            "lib/ring.wgsl",
            "lib/rope.wgsl",
            "lib/half.wgsl",
            "lib/reduce_subgroup.wgsl",
            "lib/lanes_subgroup.wgsl",
        ],
        subgroups: true,
        ..Self::SOURCES
    };
    /// The kernel that makes one of several splits.
    pub const JOIN: KernelSource = KernelSource {
        name: "attention_join",
        wgsl: wgsl!("lib/attention_params.wgsl", "lib/frame.wgsl", "attention_join.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<AttentionParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernels for heads of one shape and one layout of pairs. `sums`: how lanes may add up.
    pub async fn new(gpu: &Gpu, shape: HeadShape, neox: bool, sums: Sums) -> Result<Self> {
        let plan = Plan::of(gpu.tier.lanes(), gpu.tier.cpu, shape, sums);
        Self::planned(gpu, shape, neox, plan).await
    }

    pub(crate) async fn planned(
        gpu: &Gpu,
        shape: HeadShape,
        neox: bool,
        plan: Plan,
    ) -> Result<Self> {
        let mut overrides = plan.overrides(shape);
        overrides.push(("NEOX", f64::from(u8::from(neox))));
        // With four lanes lavapipe of Mesa 22.3 leaves its loops after the first turn.
        let join = [("WG", f64::from(gpu.tier.lanes().max(8)))];
        let (one, join) =
            try_join(Kernel::new(gpu, plan.source, overrides), Kernel::new(gpu, Self::JOIN, join))
                .await?;
        Ok(Self { one, join, plan, shape })
    }

    /// The kernel that a GPU of so many lanes a workgroup runs, and its overrides: for tools that compile it.
    pub fn on_gpu(
        lanes: u32,
        shape: HeadShape,
        sums: Sums,
    ) -> (KernelSource, Vec<(&'static str, f64)>) {
        let plan = Plan::of(lanes, false, shape, sums);
        (plan.source, plan.overrides(shape))
    }

    /// Workgroups that read each key and value.
    pub fn readers(&self) -> usize {
        self.shape.sharing / self.plan.group as usize
    }

    /// Records the attention of the token whose products are in `qkv` [1, (H + 2 KV) HD] over the cache `k`, `v`
    /// [S + N, words], where its own come, into `out` [1, H HD]. `turns`: [S + 2N, R/2, 2]; `parts`: [splits, H, HD + 4];
    /// `terms`: [H, 4], what [`head_terms`](super::head_terms) gives.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        params: AttentionParams,
        [frame, qkv, turns, k, v, parts, out, terms]: [&Tensor; 8],
    ) -> Result<()> {
        frame.expect(Self::OP, [FRAME])?;
        let [_, kv_heads, head_dim] = params.shape();
        expect_cache(Self::OP, params.ring, [kv_heads, head_dim], self.shape.kv, [k, v])?;
        self.record_all(recording, label, params, [frame, qkv, turns, k, v, parts, out, terms])
    }

    /// Records the same for R tokens, each of a stream of its own. `qkv`: [R, (H + 2 KV) HD]; `frame`: [R', 64], R' at least
    /// R; `k`, `v`: of all streams, one after another, [slots, words]; `parts`: [R splits, H, HD + 4]; `out`: [R, H HD].
    pub fn record_rows(
        &self,
        recording: &mut Recording,
        label: &str,
        params: AttentionParams,
        [frame, qkv, turns, k, v, parts, out, terms]: [&Tensor; 8],
    ) -> Result<()> {
        let [rows, _] = frame.dims(Self::OP)?;
        let [count, _] = out.dims(Self::OP)?;
        frame.expect(Self::OP, [rows.max(count), FRAME_ROW])?;
        let [_, kv_heads, head_dim] = params.shape();
        let ring = params.ring;
        let slots = ring.sinks as usize + ring.slots as usize;
        let [least, words] = self.shape.kv.shape(slots, kv_heads, head_dim);
        for tensor in [k, v] {
            tensor.expect(Self::OP, [tensor.shape[0].max(least), words])?;
        }
        self.record_all(recording, label, params, [frame, qkv, turns, k, v, parts, out, terms])
    }

    const OP: &str = "attention_one";

    fn record_all(
        &self,
        recording: &mut Recording,
        label: &str,
        params: AttentionParams,
        [frame, qkv, turns, k, v, parts, out, terms]: [&Tensor; 8],
    ) -> Result<()> {
        const OP: &str = AttentionOne::OP;
        let [heads, kv_heads, head_dim] = params.shape();
        let (ring, count) = (params.ring, splits(params.ring));
        let [rows, _] = out.dims(OP)?;
        qkv.expect(OP, [rows, (heads + 2 * kv_heads) * head_dim])?;
        expect_turns(OP, ring, params.rope_dim, turns)?;
        // Other layers may have a cache of more splits.
        let room = parts.shape.first().copied().unwrap_or(0).max(rows * count as usize);
        parts.expect(OP, [room, heads, head_dim + 4])?;
        out.expect(OP, [rows, heads * head_dim])?;
        terms.expect(OP, [heads, HEAD_TERMS])?;
        self.shape.expect(OP, params, out)?;
        let (rows, params) = (rows as u32, AttentionParams { first: 0, span: SPLIT, ..params });
        let one = if count == 1 { out } else { parts };
        let tensors = [frame, qkv, turns, terms, k, v, one];
        let iterations = self.plan.iterations(params.head_dim);
        let work = Work { grid: [params.heads / self.plan.group, count, rows], iterations };
        recording.dispatch(label, &self.one, params, &tensors, work)?;
        recording.loops(Loops::Slots { first: 0, end: ring.sinks + ring.slots });
        if count > 1 {
            let groups = (params.heads * params.head_dim / 4).div_ceil(self.join.lanes());
            let work = Work { grid: [groups, 1, rows], iterations: 2 * u64::from(count) };
            let label = format!("{label}_join");
            recording.dispatch(label, &self.join, params, &[frame, parts, out], work)?;
        }
        Ok(())
    }
}
