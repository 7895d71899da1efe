//! Norms of one token, folded into the products around them: what is made for it at load, and how it is recorded.
use super::pass::Recorder;
use super::tensors::Products;
use super::weights::{Matrix, NormWeights, Weights};
use super::{Config, NormPlaces, Positions};
use crate::Result;
use crate::format::DType;
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{Epilogue, FRAME, Folds, Linear, MatMul, NormKind, Product, Variant};

impl Config {
    /// Whether the norms of one token fold into the products around them.
    pub(crate) fn folds(&self) -> bool {
        let sums = self.norms.kind == NormKind::Rms || self.experts.is_none();
        // What is read beside another block has its partial sums from the embedding on.
        self.norms.places == NormPlaces::Before
            && sums
            && (!self.parallel || self.folds_embedding())
    }

    /// Whether the first norm of all folds into what writes the embedding.
    fn folds_embedding(&self) -> bool {
        !self.norms.embedding && self.positions != Positions::Learned
    }

    /// How norms fold into the products of a model of this kind.
    pub(super) fn fold_kind(&self, products: &Products) -> Folds {
        let Self { norms, parallel, .. } = self;
        Folds { kind: norms.kind, biased: products.residual_bias, beside: *parallel }
    }

    /// Whether vectors are kept for [`Weights::fold`].
    pub(super) fn keeps_vectors(&self, products: &Products) -> bool {
        self.folds() && (self.norms.kind == NormKind::Layer || products.residual_bias)
    }
}

/// Multiplies the vectors of norms with the matrices that read them.
pub(super) struct Folding {
    op: MatMul,
    frame: Tensor,
}

impl Folding {
    /// Compiles what a model of this kind needs, if it needs it: for LayerNorms.
    pub(super) async fn new(
        gpu: &Gpu,
        config: &Config,
        products: &Products,
        variant: Variant,
    ) -> Result<Option<Self>> {
        if !config.folds() || config.norms.kind == NormKind::Rms {
            return Ok(None);
        }
        let read = products.layers.iter().filter(|(epilogue, _)| *epilogue != Epilogue::Add);
        let mut dtypes: Vec<DType> = Vec::new();
        for &(_, dtype) in read.chain(&products.output) {
            if !dtypes.contains(&dtype) {
                dtypes.push(dtype);
            }
        }
        let added: Vec<Product> = dtypes.into_iter().map(|dtype| (Epilogue::Add, dtype)).collect();
        let op = MatMul::new(gpu, &[], &added, variant).await?;
        let frame = Tensor::upload(gpu, "fold.frame", &[FRAME], &[0u32, 2, 0, 0])?;
        Ok(Some(Self { op, frame }))
    }

    /// What a LayerNorm adds to a product that it folds into, and what is to be taken off for each unit of the mean: [2, M].
    /// Products of the norm's bias, to which the matrix' own is added, and of its gain.
    fn terms(
        &self,
        gpu: &Gpu,
        w: &Linear,
        label: &str,
        bias: Option<&Vec<f32>>,
        [norm_bias, gain]: [Option<&Vec<f32>>; 2],
    ) -> Result<Tensor> {
        let row = |values: Option<&Vec<f32>>, len: usize| values.cloned().unwrap_or(vec![0.0; len]);
        let x = [row(norm_bias, w.cols), row(gain, w.cols)].concat();
        let y = [row(bias, w.rows), vec![0.0; w.rows]].concat();
        let x = Tensor::upload(gpu, "fold.x", &[2, w.padded_cols()], &x)?;
        let y = Tensor::upload(gpu, format!("w.{label}.folded"), &[2, w.rows], &y)?;
        let mut r = Recording::default();
        self.op.record(&mut r, label, Epilogue::Add, [&self.frame, &x, &y], w, None)?;
        // One matrix a submission: of a large one that is as long as it should be.
        r.finish(gpu)?.run(gpu, &[]);
        Ok(y)
    }
}

impl Weights {
    /// Makes what folds into products, out of the vectors that were kept.
    pub(super) fn fold(
        &mut self,
        gpu: &Gpu,
        config: &Config,
        products: &Products,
        op: Option<&Folding>,
    ) -> Result<()> {
        let kept = std::mem::take(&mut self.kept);
        let biased = config.folds() && products.residual_bias;
        let layers = config.n_layer;
        let name = |layer: usize, part: &str| format!("blk.{layer}.{part}");
        // What a layer's feed-forward reads through.
        let second = |layer: usize| {
            let [own, shared] = ["ffn_norm", "attn_norm"].map(|part| name(layer, part));
            if kept.contains_key(&own) { own } else { shared }
        };
        let terms = |w: &Linear, label: &str, norm: &str| {
            let norm = [kept.get(&format!("{norm}.bias")), kept.get(norm)];
            let bias = kept.get(&format!("{label}.bias"));
            op.map(|op| op.terms(gpu, w, label, bias, norm)).transpose()
        };
        let pair = |w: &Linear, label: &str, norm: &str| {
            let bias = kept.get(&format!("{label}.bias")).cloned().unwrap_or(vec![0.0; w.rows]);
            let gain = kept.get(norm).cloned().unwrap_or_default();
            let shape = [2, w.rows];
            Tensor::upload(gpu, format!("w.{label}.folded"), &shape, &[gain, bias].concat())
                .map(Some)
        };
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let label = name(i, "attn_qkv");
            layer.attn_qkv.folded = terms(&layer.attn_qkv.w, &label, &name(i, "attn_norm"))?;
            let label = name(i, "ffn_gate_up");
            layer.ffn_gate_up.folded = terms(&layer.ffn_gate_up.w, &label, &second(i))?;
            if biased {
                let label = name(i, "attn_output");
                layer.attn_output.folded = pair(&layer.attn_output.w, &label, &second(i))?;
                let label = name(i, "ffn_down");
                let last = i + 1 == layers;
                let next = if last { "output_norm".into() } else { name(i + 1, "attn_norm") };
                if config.experts.is_none() {
                    layer.ffn_down.folded = pair(&layer.ffn_down.w, &label, &next)?;
                }
            }
        }
        self.output_folded = terms(self.output().0, "output", "output_norm")?;
        gpu.check()
    }
}

/// Where norms fold into products.
#[derive(Default)]
pub(super) struct Folded<'a> {
    /// What is to be added to the stream, as soon as the next norm is known: the embedding, or a product of these.
    waits: Option<Waits<'a>>,
    /// Partial sums of the stream, none where `act.xn` is normed already; nothing is known of them where the stream has
    /// changed since.
    pub(super) partials: Option<u32>,
    /// The gain that `act.xn` is to have in it.
    gain: Option<&'a Tensor>,
}

enum Waits<'a> {
    Embedding,
    Product { label: String, from: &'a Tensor, matrix: &'a Matrix },
}

impl<'a> Folded<'a> {
    /// Puts a product off until the norm that reads the stream next is known.
    pub(super) fn wait(&mut self, label: String, from: &'a Tensor, matrix: &'a Matrix) {
        self.waits = Some(Waits::Product { label, from, matrix });
    }

    /// Whether something waits.
    pub(super) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// The same of the embedding, where a model's folds.
    pub(super) fn wait_for_embedding(&mut self, config: &Config) -> bool {
        let folds = config.folds_embedding();
        self.waits = folds.then_some(Waits::Embedding);
        folds
    }
}

impl<'a> Recorder<'a> {
    /// Writes what waits to be added to the stream, for a norm to be read next.
    pub(super) fn settle(&mut self, label: String, norm: &'a NormWeights) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let (Some(folded), Some(fused)) = (&mut self.folded, &kernels.fused) else { return Ok(()) };
        let (r, w, gain) = (&mut self.r, &model.weights, &norm.gain);
        folded.gain = Some(gain);
        match (folded.waits.take(), folded.partials) {
            (Some(Waits::Embedding), _) => {
                let embedding = [&act.tokens, gain, &act.x, &act.xn, &act.sums];
                let scale = model.config.embedding_scale();
                let partials =
                    fused.record_get_rows(r, "token_embd", scale, embedding, &w.token_embd)?;
                folded.partials = Some(partials);
            }
            (Some(Waits::Product { label, from, matrix }), _) => {
                let gain = matrix.folded.as_ref().unwrap_or(gain);
                let out = [from, gain, &act.x, &act.xn, &act.sums];
                folded.partials = Some(fused.record_residual(r, &label, out, &matrix.w)?);
            }
            // The stream is as it was: who reads it beside this block writes it for the next one.
            (None, Some(1..)) => {}
            (None, _) => {
                folded.partials = Some(0);
                return self.norm(label, norm, [&act.x, &act.xn]); // xn [1, D]
            }
        }
        Ok(())
    }

    /// A product that is added to the stream beside another block, which is still to read what the stream was.
    pub(super) fn linear_beside(
        &mut self,
        name: &str,
        from: &'a Tensor,
        matrix: &'a Matrix,
        post: (&str, Option<&'a NormWeights>),
    ) -> Result<()> {
        let (act, label) = (self.act, self.label(name));
        let (Some(folded), Some(fused)) = (&self.folded, &self.kernels.fused) else {
            return self.linear_residual(name, from, matrix, post);
        };
        let gain = matrix.folded.as_ref().or(folded.gain).unwrap_or(&act.xn);
        let out = [from, gain, &act.x, &act.xn, &act.sums];
        fused.record_beside(&mut self.r, &label, out, &matrix.w)
    }
}
