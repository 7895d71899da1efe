//! Every kernel that a model's passes need, compiled side by side.
use super::config::{HeadNorms, NormPlaces};
use super::grouped::Grouped;
use super::tensors::Products;
use super::{Cache, Config, KernelSettings, KvType, Positions, RopeLayout};
use crate::Result;
use crate::gpu::{Gpu, Program, Recording, Tensor};
use crate::ops::{
    AddPosition, Argmax, Attention, AttentionOne, ChunkAttention, DeltaNet, Experts, Fused, Gate,
    GetRows, HeadNorm, HeadShape, MatMul, MatMulFew, Norm, NormAdded, NormKind, RopeStore, Route,
    Sample, SamplerState, ShortConv, Softcap, Sums, Variant,
};
use futures_util::future::{try_join, try_join_all, try_join3, try_join4};

/// Every kernel that a pass needs, compiled once for a session.
pub(crate) struct Kernels {
    pub(super) get_rows: GetRows,
    pub(super) norm: Norm,
    /// Where what a block gives is normalised.
    pub(super) norm_added: Option<NormAdded>,
    pub(super) matmul: MatMul,
    /// Of a few tokens of as many streams, where a device has a way of its own for them.
    pub(super) few: Option<MatMulFew>,
    /// Where norms fold into the products of one token.
    pub(super) fused: Option<Fused>,
    pub(super) head_norm: Option<HeadNorm>,
    pub(super) add_position: Option<AddPosition>,
    pub(super) softcap: Option<Softcap>,
    /// Where a token goes to some of several feed-forwards.
    pub(super) experts: Option<(Route, Experts)>,
    /// The same of many tokens.
    pub(super) grouped: Option<Grouped>,
    /// Where layers have a convolution.
    pub(super) short_conv: Option<ShortConv>,
    /// Where they have states, and how what these give is normed.
    pub(super) delta_net: Option<(DeltaNet, Gate)>,
    /// Where heads of attention have gates.
    pub(super) gate: Option<Gate>,
    pub(super) rope_store: RopeStore,
    /// Of one token and of many, for each of [`Config::heads`].
    pub(super) attention: Vec<(AttentionOne, Attention)>,
    argmax: Argmax,
    sample: Sample,
    pub(super) variant: Variant,
}

/// What a kernel is made by, where it is wanted.
async fn wanted<T>(wanted: bool, made: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    if wanted { made.await.map(Some) } else { Ok(None) }
}

/// What a device may have a kernel of, where it is wanted.
async fn some<T>(wanted: bool, made: impl Future<Output = Result<Option<T>>>) -> Result<Option<T>> {
    if wanted { made.await } else { Ok(None) }
}

/// What kernels are compiled for: all of it is known before the weights have come.
pub(crate) struct Needs<'a> {
    config: &'a Config,
    /// Of each of [`Config::heads`].
    heads: Vec<HeadShape>,
    kv: KvType,
    products: &'a Products,
    variant: Variant,
    /// Whether there are passes of several streams.
    rows: bool,
}

impl<'a> Needs<'a> {
    pub(crate) fn new(
        config: &'a Config,
        products: &'a Products,
        variant: Variant,
        settings: KernelSettings,
    ) -> Self {
        let KernelSettings { kv, activations, tiles, rows } = settings;
        let variant = Variant { activations, tiles: tiles && variant.tiles, ..variant };
        let heads = config.head_shapes(kv);
        Self { config, heads, kv, products, variant, rows }
    }
}

impl Kernels {
    /// Compiles them side by side.
    pub(crate) async fn new(gpu: &Gpu, needs: Needs<'_>) -> Result<Self> {
        let Needs { config: c, heads, kv, products, variant, rows } = needs;
        c.expect_kv(kv)?;
        let Products { embedding, layers, experts, output, .. } = products;
        let (folds, neox) = (c.folds(), c.rope.layout == RopeLayout::Neox);
        let all = [&layers[..], output].concat();
        // A chunk gives the logits of its last token alone; one token has products of its own where norms fold.
        let one = if folds { output } else { &all };
        let many = if rows { &all } else { layers };
        // The variant is one of products; here what counts is what the device can do.
        let sums = Sums::of(gpu);
        let attention = try_join_all(heads.into_iter().map(|shape| {
            let way = ChunkAttention::of(gpu, shape, sums, variant.tiles);
            try_join(AttentionOne::new(gpu, shape, neox, sums), Attention::new(gpu, shape, way))
        }));
        let centred = c.head_norms == Some(HeadNorms::OwnGains);
        let head_norm = if centred { NormKind::Layer } else { NormKind::Rms };
        let folded =
            wanted(folds, Fused::new(gpu, &all, embedding, variant, c.fold_kind(products)));
        let after = c.norms.places != NormPlaces::Before;
        let norms = try_join(
            Norm::new(gpu, sums, c.norms.kind),
            wanted(after, NormAdded::new(gpu, sums, c.norms.kind)),
        );
        let key_dim = c.delta_net.map_or(0, |heads| heads.key_dim);
        let mixers = try_join3(
            wanted(c.conv_taps > 0, ShortConv::new(gpu, c.delta_net.is_none())),
            wanted(
                c.delta_net.is_some(),
                try_join(DeltaNet::new(gpu, key_dim), Gate::new(gpu, sums, true)),
            ),
            wanted(c.gated_heads, Gate::new(gpu, sums, false)),
        );
        let few = try_join4(
            mixers,
            wanted(c.head_norms.is_some(), HeadNorm::new(gpu, sums, head_norm)),
            wanted(c.positions == Positions::Learned, AddPosition::new(gpu)),
            wanted(c.caps.logits.or(c.caps.qkv).is_some(), Softcap::new(gpu)),
        );
        let routed = try_join(
            wanted(
                !experts.is_empty(),
                try_join(Route::new(gpu), Experts::new(gpu, variant.sums, experts, folds)),
            ),
            wanted(!experts.is_empty(), Grouped::new(gpu, experts)),
        );
        // Nothing is awaited before everything is begun: the weights stream from the first pause on.
        let (
            (
                get_rows,
                (norm, norm_added),
                (matmul, few),
                (
                    fused,
                    ((short_conv, delta_net, gate), head_norm, add_position, softcap),
                    (experts, grouped),
                ),
            ),
            (rope_store, attention, argmax, sample),
        ) = try_join(
            try_join4(
                GetRows::new(gpu, embedding),
                norms,
                try_join(
                    MatMul::new(gpu, one, many, variant),
                    some(rows, MatMulFew::new(gpu, &all, variant)),
                ),
                try_join3(folded, few, routed),
            ),
            try_join4(RopeStore::new(gpu, neox, kv), attention, Argmax::new(gpu), Sample::new(gpu)),
        )
        .await?;
        Ok(Self {
            get_rows,
            norm,
            norm_added,
            matmul,
            few,
            fused,
            head_norm,
            add_position,
            softcap,
            experts,
            short_conv,
            delta_net,
            gate,
            grouped,
            rope_store,
            attention,
            argmax,
            sample,
            variant,
        })
    }

    /// Fewer tokens than these take a chunk's pass as long.
    pub(crate) fn tile_tokens(&self) -> usize {
        self.matmul.tokens()
    }

    /// So few tokens go through faster one by one than in a pass that is made for many.
    pub(crate) fn few_tokens(&self) -> usize {
        if self.variant.columns { 6 } else { 1 }
    }

    /// How often a pass of so many tokens reads each key and value that is stored, in the layers that do so most.
    pub(crate) fn cache_readers(&self, tokens: usize) -> usize {
        let readers = self.attention.iter().map(|(one, many)| match tokens {
            1 => one.readers(),
            _ => many.readers(tokens),
        });
        readers.max().unwrap_or(0)
    }

    /// The program that turns `logits` [1, V], less those in `banned` [ceil(V/32)] bits, into the first of `tokens`, notes
    /// it in `chosen`, and moves `frame` on: a pass over both is ready for a next step. The likeliest, without more.
    pub(crate) fn likeliest(
        &self,
        gpu: &Gpu,
        cache: &Cache,
        tensors: [&Tensor; 5],
    ) -> Result<Program> {
        let mut recording = Recording::default();
        self.argmax.record(&mut recording, "argmax", cache.longest(), tensors)?;
        recording.finish(gpu)
    }

    /// The same of each row of `logits, tokens, frames, chosen`, by what the row's stream has in `streams`:
    /// see [`Sample::record`].
    pub(crate) fn choices(
        &self,
        gpu: &Gpu,
        cache: &Cache,
        streams: &SamplerState,
        tensors: [&Tensor; 4],
    ) -> Result<Program> {
        let mut recording = Recording::default();
        self.sample.record(&mut recording, "sample", cache.longest(), streams, tensors)?;
        recording.finish(gpu)
    }
}
