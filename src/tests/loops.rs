//! How often the loops of a kernel go round. Some drivers end an invocation after 65,535 iterations without a word, so
//! every dispatch states a bound, which `Recording::dispatch` holds it to. Here the bounds are held to what kernels
//! really do, counted on the device, and every kernel to the largest sizes that models have.
use crate::format::DType;
use crate::gpu::{Gpu, KernelSource, MOST_ITERATIONS, Recording, Tensor, counted_loops};
use crate::ops::*;
use crate::tests::ops::attend;
use crate::tests::support::gpu;
use crate::text::{Sampler, SamplerSettings};
use pollster::block_on;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What decides how long kernels loop.
pub(super) struct Sizes {
    /// V
    pub vocab: usize,
    /// K of products, which is D or F
    pub width: usize,
    /// W
    pub window: u32,
    /// T
    pub chunk: usize,
    /// HD
    pub head_dims: &'static [usize],
    pub dtypes: Vec<DType>,
}

impl Sizes {
    /// The largest that the engine is meant for.
    fn largest() -> Self {
        Self {
            vocab: 262_144,
            width: 32_768,
            window: 131_072 - 4,
            chunk: 512,
            head_dims: &[64, 80, 128, 256, 512],
            dtypes: DType::ALL.to_vec(),
        }
    }

    /// A ring for them, with sinks.
    fn ring(&self) -> RingParams {
        let slots = self.window + self.chunk as u32 - 1;
        RingParams { sinks: 4, window: self.window, slots }
    }
}

/// A device, and the memory for all where what is recorded is not run: it would be tens of gigabytes otherwise.
struct Maker<'a> {
    gpu: &'a Gpu,
    memory: Option<RefCell<Tensor>>,
}

impl std::ops::Deref for Maker<'_> {
    type Target = Gpu;
    fn deref(&self) -> &Gpu {
        self.gpu
    }
}

fn zeros(on: &Maker, shape: &[usize]) -> Tensor {
    let fresh = || Tensor::zeros(on, "zeros", shape).unwrap();
    let Some(memory) = &on.memory else { return fresh() };
    if memory.borrow().len() < shape.iter().product() {
        memory.replace(fresh());
    }
    memory.borrow().view("zeros", 0, shape)
}

/// Of a cache that has gone round: the position of the pass, its tokens, sinks kept.
fn frame(gpu: &Maker, sizes: &Sizes, tokens: usize) -> Tensor {
    let ring = sizes.ring();
    let n = ring.sinks + ring.slots + ring.slots / 2;
    Tensor::upload(gpu, "frame", &[FRAME], &[n, tokens as u32, 1, 0]).unwrap()
}

/// Products of every type, one token and a chunk, by every variant of the device.
fn products(gpu: &Maker, sizes: &Sizes, r: &mut Recording) {
    const ROWS: usize = 96;
    let (width, chunk) = (sizes.width, sizes.chunk);
    let mut variants = Variant::all(gpu);
    let many = variants.last().map(|last| Variant { rows: 48, ..*last });
    variants.extend(many.filter(|many| many.columns));
    let bytes = variants.clone().into_iter();
    variants.extend(bytes.map(|v| Variant { activations: ActivationType::Int8, ..v }));
    let all: Vec<Product> = sizes.dtypes.iter().map(|&dtype| (Epilogue::Store, dtype)).collect();
    let added: Vec<Product> = sizes.dtypes.iter().map(|&dtype| (Epilogue::Add, dtype)).collect();
    let both = [&all[..], &added].concat();
    let [one_x, many_x] = [1, chunk].map(|tokens| zeros(gpu, &[tokens, width]));
    let [one_y, many_y] = [1, chunk].map(|tokens| zeros(gpu, &[tokens, ROWS]));
    let (xn, yn, many_xn) =
        (zeros(gpu, &[1, width]), zeros(gpu, &[1, ROWS]), zeros(gpu, &[chunk, width]));
    let [one_frame, many_frame] = [1, chunk].map(|tokens| frame(gpu, sizes, tokens));
    let (tokens, token) = (zeros(gpu, &[chunk]), zeros(gpu, &[1]));
    let (gain, wide_gain) = (zeros(gpu, &[ROWS]), zeros(gpu, &[width]));
    let (sums, many_yn) = (zeros(gpu, &[3 * width]), zeros(gpu, &[chunk, width]));
    let terms = zeros(gpu, &[2, ROWS]);
    let weights: Vec<Linear> = sizes
        .dtypes
        .iter()
        .map(|&dtype| Linear::zeros(gpu, "w", dtype, [ROWS, width]).unwrap())
        .collect();
    for variant in variants {
        let matmul = block_on(MatMul::new(gpu, &all, &all, variant)).unwrap();
        let few_streams = block_on(MatMulFew::new(gpu, &all, variant)).unwrap();
        let fused = Fused::new(gpu, &both, &sizes.dtypes, variant, Folds::RMS);
        let fused = block_on(fused).unwrap();
        let layer = Folds { kind: NormKind::Layer, biased: false, beside: true };
        let (first, few) = (&sizes.dtypes[..1], [all[0], added[0]]);
        let centred = block_on(Fused::new(gpu, &few, first, variant, layer)).unwrap();
        for (i, w) in weights.iter().enumerate() {
            let store = Epilogue::Store;
            matmul.record(r, "matvec", store, [&one_frame, &one_x, &one_y], w, None).unwrap();
            matmul.record(r, "matmul", store, [&many_frame, &many_x, &many_y], w, None).unwrap();
            if let Some(few) = &few_streams {
                few.record(r, "matmul_few", store, [&many_frame, &many_x, &many_y], w, None)
                    .unwrap();
            }
            // A group of rows leaves a partial sum: the fewest rows leave the most.
            let partials = (width / 4) as u32;
            // Kernels are the same text whatever the type.
            let centred = (i == 0).then_some((&centred, Some(&terms)));
            for (fused, bias) in [(&fused, None)].into_iter().chain(centred) {
                let input = Normed { xn: &one_x, sums: &sums, partials };
                fused.record_normed(r, "normed", store, 1e-5, input, &one_y, w, bias).unwrap();
                let tensors = [&one_x, &gain, &one_y, &yn, &sums];
                fused.record_residual(r, "residual", tensors, w).unwrap();
                if bias.is_some() {
                    fused.record_beside(r, "beside", tensors, w).unwrap();
                }
                let embedding = [&token, &wide_gain, &one_x, &xn, &sums];
                fused.record_get_rows(r, "get_rows_normed", 1.0, embedding, w).unwrap();
            }
        }
    }
    let get_rows = block_on(GetRows::new(gpu, &sizes.dtypes)).unwrap();
    for w in &weights {
        get_rows.record(r, "get_rows", 1.0, [&many_frame, &tokens, &many_x], w).unwrap();
    }
    let (add_position, w) = (block_on(AddPosition::new(gpu)).unwrap(), zeros(gpu, &[1, width]));
    add_position.record(r, "add_position", [&many_frame, &w, &many_x]).unwrap();
    for sums in [Sums::Shared, Sums::of(gpu)] {
        for kind in [NormKind::Rms, NormKind::Layer] {
            let norm = block_on(Norm::new(gpu, sums, kind)).unwrap();
            let tensors = [&many_frame, &many_x, &wide_gain, &many_xn];
            norm.record(r, "norm", 1e-5, tensors, None).unwrap();
            let op = block_on(NormAdded::new(gpu, sums, kind)).unwrap();
            let (frame, gain, bias) = (&many_frame, &wide_gain, Some(&wide_gain));
            let added = Added { x: &many_x, gain, bias, eps: 1e-5, scale: 1.0 };
            op.record(r, "norm_added", [frame, &many_xn], added, None).unwrap();
            if op.has_next() {
                let next = Next { gain, eps: 1e-5, yn: &many_yn };
                op.record(r, "norm_added", [frame, &many_xn], added, Some(next)).unwrap();
            }
        }
    }
}

/// The experts of a token, as many as it may have.
fn experts(gpu: &Maker, sizes: &Sizes, r: &mut Recording) {
    const ROWS: usize = 8;
    let (width, used) = (sizes.width, MOST_USED);
    let route = block_on(Route::new(gpu)).unwrap();
    let (frame, logits) = (frame(gpu, sizes, 1), zeros(gpu, &[1, MOST_EXPERTS]));
    let chosen = zeros(gpu, &[1, used, 2]);
    let params = RouteParams { experts: MOST_EXPERTS as u32, used: used as u32, scale: 1.0 };
    route.record(r, "route", params, [&frame, &logits, &chosen]).unwrap();
    let (x, h) = (zeros(gpu, &[1, width]), zeros(gpu, &[1, used, width]));
    let squares = zeros(gpu, &[width / 4]);
    let (up, down) = (zeros(gpu, &[1, used, ROWS / 2]), zeros(gpu, &[1, ROWS]));
    let first = sizes.dtypes[0];
    let added = sizes.dtypes.iter().map(|&dtype| (Epilogue::Add, dtype));
    let products: Vec<Product> = added.chain([(Epilogue::SwiGlu, first)]).collect();
    for sums in [Sums::Shared, Sums::of(gpu)] {
        let op = block_on(Experts::new(gpu, sums, &products, true)).unwrap();
        for &(epilogue, dtype) in &products {
            let w = Linear::zeros(gpu, "w", dtype, [used * ROWS, width]).unwrap();
            let weights = ExpertWeights { w: &w, bias: None, experts: used };
            let tensors = match epilogue {
                Epilogue::Add => [&frame, &h, &chosen, &down],
                _ => [&frame, &x, &chosen, &up],
            };
            op.record(r, "experts", epilogue, tensors, weights).unwrap();
            if epilogue != Epilogue::Add {
                let input = Normed { xn: &x, sums: &squares, partials: width as u32 / 4 };
                let (eps, out) = (1e-5, [&chosen, &up]);
                op.record_normed(r, "normed", epilogue, eps, input, out, weights).unwrap();
            }
        }
    }
}

/// The experts of a chunk, as many as there may be.
fn grouped(gpu: &Maker, sizes: &Sizes, r: &mut Recording) {
    const ROWS: usize = 96;
    let (width, tokens, experts) = (sizes.width, sizes.chunk, MOST_EXPERTS);
    let frame = frame(gpu, sizes, tokens);
    let group = block_on(GroupExperts::new(gpu)).unwrap();
    let chosen = |used: usize| {
        let of_token = |token: usize| (0..used).flat_map(move |slot| [(token + slot) as u32, 0]);
        let words: Vec<u32> = (0..tokens).map(|token| token % 2).flat_map(of_token).collect();
        Tensor::upload(gpu, "chosen", &[tokens, used, 2], &words).unwrap()
    };
    let first = sizes.dtypes[0];
    let stored = sizes.dtypes.iter().map(|&dtype| (Epilogue::Store, dtype));
    let products: Vec<Product> = stored.chain([(Epilogue::SwiGlu, first)]).collect();
    let (x, y) = (zeros(gpu, &[tokens, width]), zeros(gpu, &[tokens, 1, ROWS]));
    let h = zeros(gpu, &[tokens, 1, ROWS / 2]);
    for tiles in [ExpertTiles::Rows, ExpertTiles::Tiles] {
        for used in [MOST_USED, 1] {
            let groups = zeros(gpu, &tiles.groups([tokens, used, experts]));
            let tensors = [&frame, &chosen(used), &groups];
            group.record(r, "group_experts", experts, tensors).unwrap();
        }
        let op = block_on(ExpertsMany::new(gpu, tiles, &products)).unwrap();
        let groups = zeros(gpu, &tiles.groups([tokens, 1, 2]));
        group.record(r, "group_experts", 2, [&frame, &chosen(1), &groups]).unwrap();
        for &(epilogue, dtype) in &products {
            let w = Linear::zeros(gpu, "w", dtype, [2 * ROWS, width]).unwrap();
            let weights = ExpertWeights { w: &w, bias: None, experts: 2 };
            let y = if epilogue.gated() { &h } else { &y };
            op.record(r, "experts_many", epilogue, [&x, &groups, y], weights).unwrap();
        }
    }
    let used = MOST_USED;
    let (given, x) = (zeros(gpu, &[tokens, used, ROWS]), zeros(gpu, &[tokens, ROWS]));
    let op = block_on(SumExperts::new(gpu)).unwrap();
    op.record(r, "sum_experts", [&frame, &given, &chosen(used), &x]).unwrap();
}

/// Attention and what belongs to the cache, of heads of one size.
fn heads(gpu: &Maker, sizes: &Sizes, (head_dim, kv): (usize, KvType), r: &mut Recording) {
    let (ring, tokens) = (sizes.ring(), sizes.chunk);
    let stored = (ring.sinks + ring.slots) as usize;
    let (h, hd) = (2, head_dim);
    // What llama-like models have, and what they do not have.
    let more = head_dim.is_multiple_of(128);
    let shape = HeadShape { head_dim, sharing: h, kv, alibi: more, capped: more };
    let [k, v] = [0, 1].map(|_| zeros(gpu, &kv.shape(stored, 1, hd)));
    let [heads, kv_heads, head_dim] = [h as u32, 1, hd as u32];
    let cap = if more { 1.0 } else { 0.0 };
    let attend =
        AttentionParams { cap, ..attend([heads, kv_heads, head_dim, head_dim], ring, 1.0) };
    let [one_frame, frame] = [1, tokens].map(|tokens| frame(gpu, sizes, tokens));
    let (q, terms) = (zeros(gpu, &[tokens, 3, h * hd]), zeros(gpu, &[h, 4]));
    let (out, carry) = (zeros(gpu, &[tokens, h * hd]), zeros(gpu, &[tokens, h, carried(hd)]));
    let sums = Sums::of(gpu);
    for way in [ChunkAttention::Heads, ChunkAttention::Tiles, ChunkAttention::Columns] {
        if way.fits(gpu, shape, sums) {
            let op = block_on(Attention::new(gpu, shape, way)).unwrap();
            op.record(r, "attention", attend, [&frame, &q, &k, &v, &out, &carry, &terms]).unwrap();
        }
    }
    let turns = zeros(gpu, &[ring.phases(), hd / 2, 2]);
    let qkv = zeros(gpu, &[tokens, (h + 2) * hd]);
    let op = block_on(RopeStore::new(gpu, false, kv)).unwrap();
    op.record(r, "rope_store", attend, [&frame, &qkv, &turns, &q, &k, &v]).unwrap();
    let (qkv, out) = (zeros(gpu, &[1, (h + 2) * hd]), zeros(gpu, &[1, h * hd]));
    let parts = zeros(gpu, &[splits(ring) as usize, h, hd + 4]);
    for sums in [Sums::Shared, sums] {
        let op = block_on(AttentionOne::new(gpu, shape, false, sums)).unwrap();
        let tensors = [&one_frame, &qkv, &turns, &k, &v, &parts, &out, &terms];
        op.record(r, "one", attend, tensors).unwrap();
    }
    let gain = zeros(gpu, &[2 * hd]);
    for kind in [NormKind::Rms, NormKind::Layer] {
        let op = block_on(HeadNorm::new(gpu, sums, kind)).unwrap();
        let params = HeadNormParams::of_heads(heads, kv_heads, head_dim, 1e-5);
        op.record(r, "head_norm", params, [&frame, &gain, &qkv]).unwrap();
    }
    let shares = block_on(Shares::new(gpu, shape)).unwrap();
    let seen = zeros(gpu, &[1, 1, h, 64.min(stored)]);
    let q = zeros(gpu, &[1, 3, h * hd]);
    shares.record(r, "shares", attend, 0, [&one_frame, &q, &k, &v, &seen, &terms]).unwrap();
    if kv.in_blocks() {
        return;
    }
    let shift = block_on(Shift::new(gpu, hd, false, kv)).unwrap();
    let params = ShiftParams::half(ring, kv_heads, head_dim);
    shift.record(r, "shift", ring, params, [&turns, &k, &v]).unwrap();
}

/// What a token is chosen by.
fn choices(gpu: &Maker, sizes: &Sizes, r: &mut Recording) {
    let (ring, vocab) = (sizes.ring(), sizes.vocab);
    let (logits, banned) = (zeros(gpu, &[1, vocab]), zeros(gpu, &[vocab.div_ceil(32)]));
    let (token, chosen, frame) = (zeros(gpu, &[1]), zeros(gpu, &[16]), frame(gpu, sizes, 1));
    let tensors = [&logits, &banned, &token, &frame, &chosen];
    block_on(Argmax::new(gpu)).unwrap().record(r, "argmax", ring, tensors).unwrap();
    let sample = block_on(Sample::new(gpu)).unwrap();
    let penalties = SamplerSettings { repeat_penalty: 1.1, ..SamplerSettings::default() };
    let most = SamplerSettings { top_k: vocab as u32 - 1, ..penalties.clone() };
    let likeliest = SamplerSettings { temperature: 0.0, ..penalties.clone() };
    let all = SamplerSettings { top_k: 0, ..most.clone() };
    for by in [SamplerSettings::default(), likeliest, all, most] {
        let draws = SamplerState::new(gpu, &by, vocab).unwrap();
        draws.tell(gpu, &Sampler::new(by, vocab, &[]).unwrap());
        let tensors = [&logits, &token, &frame, &chosen];
        sample.record(r, "sample", ring, &draws, tensors).unwrap();
    }
    let (targets, nll) = (zeros(gpu, &[1]), zeros(gpu, &[1]));
    let op = block_on(Nll::new(gpu)).unwrap();
    op.record(r, "nll", [&frame, &logits, &targets, &nll]).unwrap();
    block_on(Softcap::new(gpu)).unwrap().record(r, "softcap", 30.0, &logits).unwrap();
    let peak = block_on(Peak::new(gpu)).unwrap();
    let (params, y) =
        (PeakParams { steps: 2_048, a: 0.5, b: 1.0 }, zeros(gpu, &[1, peak.lanes() as usize]));
    peak.record(r, "peak", params, &y).unwrap();
}

/// Layers that do not attend.
fn states(gpu: &Maker, sizes: &Sizes, r: &mut Recording) {
    let (tokens, channels, taps) = (sizes.chunk, 96, 64);
    let (frame, conv) = (frame(gpu, sizes, tokens), zeros(gpu, &[channels * taps]));
    let (mix, y) = (zeros(gpu, &[tokens, 3 * channels]), zeros(gpu, &[tokens, channels]));
    let history = zeros(gpu, &[tokens + taps, channels]);
    let op = block_on(ShortConv::new(gpu, true)).unwrap();
    op.record(r, "short_conv", taps, [&frame, &mix, &conv, &history, &y]).unwrap();
    for &key_dim in sizes.head_dims {
        let slots = (tokens as u32 + 31).next_multiple_of(32);
        let (heads, value_dim) = (2, 48);
        let width = 2 * key_dim as u32 + heads * (value_dim + 2);
        let params = DeltaNetParams {
            key_heads: 1,
            heads,
            key_dim: key_dim as u32,
            value_dim,
            width,
            slots,
            step: 32,
            first: 0,
            span: 0,
            eps: 1e-6,
        };
        let (rows, terms) = (zeros(gpu, &[slots as usize, width as usize]), zeros(gpu, &[4]));
        let (states, o) = (zeros(gpu, &params.states()), zeros(gpu, &[tokens, 96]));
        let op = block_on(DeltaNet::new(gpu, key_dim)).unwrap();
        op.record(r, "delta_net", params, [&frame, &rows, &terms, &states, &o]).unwrap();
        let z = zeros(gpu, &[tokens, 2 * key_dim]);
        let gain = zeros(gpu, &[key_dim]);
        let size = key_dim as u32;
        let params = GateParams { heads: 2, size, stride: 2 * size, first: 0, eps: 1e-6 };
        for (sums, normed) in [(Sums::Shared, true), (Sums::of(gpu), true), (Sums::Shared, false)] {
            let op = block_on(Gate::new(gpu, sums, normed)).unwrap();
            op.record(r, "gate", params, [&frame, &z, &gain, &zeros(gpu, &[tokens, 2 * key_dim])])
                .unwrap();
        }
    }
}

pub(super) fn everything(gpu: &Gpu, sizes: &Sizes) -> Recording {
    let memory = || RefCell::new(Tensor::zeros(gpu, "memory", &[4]).unwrap());
    let memory = (!gpu.counts_loops).then(memory);
    let gpu = &Maker { gpu, memory };
    let mut recording = Recording::default();
    products(gpu, sizes, &mut recording);
    experts(gpu, sizes, &mut recording);
    grouped(gpu, sizes, &mut recording);
    for &head_dim in sizes.head_dims {
        heads(gpu, sizes, (head_dim, KvType::F16), &mut recording);
    }
    // They loop as often as the others do, but where a token's own are stored: the widest, and what columns are for.
    let fit = sizes.head_dims.iter().copied().filter(|&head_dim| KvType::Q8_0.fits(head_dim));
    let widest = fit.clone().max();
    for head_dim in fit.filter(|&head_dim| head_dim == 128 || Some(head_dim) == widest) {
        heads(gpu, sizes, (head_dim, KvType::Q8_0), &mut recording);
        heads(gpu, sizes, (head_dim, KvType::Q4_0), &mut recording);
    }
    choices(gpu, sizes, &mut recording);
    states(gpu, sizes, &mut recording);
    recording
}

/// A device of another class, that computes nothing.
pub(super) fn class(cpu: bool, subgroup: Option<u32>) -> Gpu {
    let mut gpu = block_on(Gpu::open_noop()).unwrap();
    gpu.tier.cpu = cpu;
    gpu.tier.subgroups = subgroup.is_some();
    gpu.tier.subgroup_size = [subgroup.unwrap_or(4); 2];
    // Nothing can be tried out where nothing is computed.
    gpu.tier.one_subgroup = subgroup.is_some();
    gpu
}

#[test]
fn no_invocation_loops_longer_than_every_driver_lets_it() {
    let sizes = Sizes::largest();
    let mut most: BTreeMap<String, [u64; 5]> = BTreeMap::new();
    let classes =
        [(true, None), (true, Some(4)), (true, Some(8)), (false, None), (false, Some(32))];
    for (i, (cpu, subgroup)) in classes.into_iter().enumerate() {
        for (kernel, work) in everything(&class(cpu, subgroup), &sizes).works() {
            let seen = &mut most.entry(kernel.to_owned()).or_default()[i];
            *seen = work.iterations.max(*seen);
            assert!(work.iterations <= MOST_ITERATIONS, "{kernel}: {work:?}");
        }
    }
    eprintln!("{:34} {:?}", "kernel", classes);
    for (kernel, most) in &most {
        eprintln!("{kernel:34} {most:?}");
    }
    let loops = |kernel: &KernelSource| {
        ["for (", "while ", "loop {"].iter().any(|begin| kernel.wgsl.contains(begin))
    };
    for kernel in kernels().iter().filter(|kernel| loops(kernel)) {
        assert!(most.contains_key(kernel.name), "{} is recorded by nobody here", kernel.name);
    }
}

#[test]
fn kernels_loop_as_often_as_they_say() {
    let mut gpu = gpu();
    gpu.counts_loops = true;
    let (vocab, width, window, chunk) = (5_003, 1_152, 700, 70);
    let dtypes = vec![DType::F32, DType::Q4_1];
    let sizes = Sizes { vocab, width, window, chunk, head_dims: &[64, 128], dtypes };
    let counted = block_on(counted_loops(&gpu, everything(&gpu, &sizes))).unwrap();
    let mut loops = 0;
    for (kernel, stated, made) in counted {
        assert!(made <= stated, "{kernel}: {made} iterations, it says {stated}");
        // and not so many more that the bound means nothing
        assert!(4 * made + 64 >= stated, "{kernel}: {made} iterations, it says {stated}");
        loops += made;
    }
    assert!(loops > 0, "nothing was counted");
}
