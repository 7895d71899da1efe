//! How much attention the first tokens draw, by layer and head: whether a model has sinks, and how many.
use crate::gpu::{Program, Readback, Tensor};
use crate::model::{
    Activations, Cache, CacheSettings, KvType, LayerKind, Model, Policy, Tokens, watched,
};
use crate::ops::Shares;
use crate::{Error, Result};
use futures_util::future::try_join_all;
use std::sync::Arc;

/// How many of the first tokens are looked at.
pub const FIRST: usize = 8;
/// Tokens of a pass.
const CHUNK: usize = 64;
/// Attention beyond their fair share that tokens may draw together and still not be needed.
const SPARE: f64 = 0.01;

/// Passes over a dense cache whose attention is looked at. A stream has nothing of this.
pub struct SinkScan {
    model: Arc<Model>,
    cache: Cache,
    act: Activations,
    body: Program,
    seen: Tensor, // [L, CHUNK, H, FIRST]
    back: Readback,
    numbers: Vec<f32>,
    position: usize,
    sums: Vec<f64>, // [L, H, FIRST]
    fair: f64,
    queries: u64,
}

/// What was seen of attention.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Seen {
    /// Queries that the means are over.
    pub queries: u64,
    /// What each token would get if all that a query sees were alike.
    pub fair: f64,
    /// The mean share of each of the first tokens, by layer and head: none of a layer that does not attend. [L, H, FIRST]
    pub shares: Vec<Vec<Vec<f64>>>,
}

impl SinkScan {
    /// Makes room for stretches of at most so many tokens.
    pub async fn new(model: Arc<Model>, tokens: usize, kv: KvType) -> Result<Self> {
        let (gpu, c) = (&*model.gpu, &model.config);
        if tokens < 2 * FIRST || tokens > c.n_ctx {
            return Err(Error::Usage(format!(
                "a stretch of {tokens} tokens: {} to {}, what the model was trained on, works",
                2 * FIRST,
                c.n_ctx
            )));
        }
        let policy = Policy::Dense;
        let settings = CacheSettings {
            policy,
            sinks: 0,
            window: tokens,
            chunk: CHUNK,
            kv,
            ..CacheSettings::for_model(c, policy)
        };
        let cache = Cache::new(gpu, c, settings, &model.weights.divisors)?;
        let kernels = model.kernels((&settings).into()).await?;
        let shapes = c.head_shapes(kv);
        let shares = try_join_all(shapes.into_iter().map(|shape| Shares::new(gpu, shape))).await?;
        let seen = Tensor::zeros(gpu, "act.seen", &[c.n_layer, CHUNK, c.n_head, FIRST])?;
        let act = Activations::new(gpu, &model, &cache, Tokens::Many(CHUNK))?;
        let body = watched(&model, &kernels, &cache, &act, (&shares, &seen))?;
        let (back, numbers) = (Readback::new(gpu, seen.len())?, vec![0.0; seen.len()]);
        let sums = vec![0.0; c.n_layer * c.n_head * FIRST];
        gpu.check()?;
        Ok(Self {
            cache,
            act,
            body,
            seen,
            back,
            numbers,
            position: 0,
            sums,
            fair: 0.0,
            queries: 0,
            model,
        })
    }

    /// Begins a stretch: the next token is the first of a stream.
    pub fn begin(&mut self) {
        self.position = 0;
    }

    /// Takes in tokens of a stretch, [`SinkScan::pass`] of them at most. Those from index `from` of the stretch on
    /// count as queries.
    pub async fn feed(&mut self, tokens: &[u32], from: usize) -> Result<()> {
        let (gpu, c) = (&*self.model.gpu, &self.model.config);
        let end = self.position + tokens.len();
        if tokens.len() > CHUNK || end > self.cache.settings().window {
            return Err(Error::Usage(format!(
                "{} tokens after {}: a pass takes {CHUNK}, a stretch {}",
                tokens.len(),
                self.position,
                self.cache.settings().window
            )));
        }
        c.expect_ids(tokens)?;
        self.act.tokens.write(gpu, 0, tokens);
        // A dense cache never goes round: positions are what they are.
        self.act.frame.write(gpu, 0, &[self.position as u32, tokens.len() as u32, 1, 0]);
        gpu.run(&[&self.body], &[(&self.seen, &self.back)]);
        self.back.read(gpu, &mut self.numbers).await?;
        let row = c.n_head * FIRST;
        let counted = self.position.max(from.max(FIRST - 1))..end;
        for n in counted {
            self.fair += 1.0 / (n + 1) as f64;
            self.queries += 1;
            for layer in 0..c.n_layer {
                let at = (layer * CHUNK + n - self.position) * row;
                let sums = &mut self.sums[layer * row..][..row];
                sums.iter_mut().zip(&self.numbers[at..]).for_each(|(s, &p)| *s += f64::from(p));
            }
        }
        self.position = end;
        Ok(())
    }

    /// The most tokens that a pass takes.
    pub fn pass(&self) -> usize {
        CHUNK
    }

    /// What was seen so far; none before there was a query.
    pub fn seen(&self) -> Option<Seen> {
        let mean = |sum: f64| sum / self.queries as f64;
        let head = |sums: &[f64]| sums.iter().map(|&sum| mean(sum)).collect();
        let config = &self.model.config;
        let row = config.n_head * FIRST;
        let layer = |(kind, sums): (&LayerKind, &[f64])| match kind.attends() {
            true => sums.chunks_exact(FIRST).map(head).collect(),
            false => Vec::new(),
        };
        (self.queries > 0).then(|| Seen {
            queries: self.queries,
            fair: mean(self.fair),
            shares: config.layers.iter().zip(self.sums.chunks_exact(row)).map(layer).collect(),
        })
    }
}

impl Seen {
    /// Whether all of it are numbers: a damaged model's attention is not.
    pub fn is_finite(&self) -> bool {
        self.shares.iter().flatten().flatten().all(|share| share.is_finite())
    }

    /// The mean share of the first `tokens` together, of a layer's heads.
    pub fn of_layer(&self, layer: usize, tokens: usize) -> f64 {
        let heads = &self.shares[layer];
        heads.iter().flat_map(|head| &head[..tokens]).sum::<f64>() / heads.len().max(1) as f64
    }

    /// The mean share of each of the first tokens, over all layers and heads.
    pub fn by_token(&self) -> [f64; FIRST] {
        let heads = self.shares.iter().flatten().count() as f64;
        std::array::from_fn(|j| {
            self.shares.iter().flatten().map(|head| head[j]).sum::<f64>() / heads
        })
    }

    /// What tokens after the first `sinks` draw together beyond their fair share, of those looked at.
    pub fn beyond(&self, sinks: usize) -> f64 {
        self.by_token()[sinks..].iter().map(|share| (share - self.fair).max(0.0)).sum()
    }

    /// The smallest number of sinks such that the other first tokens draw less than 1 % of all attention beyond
    /// their fair share; 0 where the first tokens are like any other.
    pub fn sinks(&self) -> usize {
        (0..FIRST).find(|&sinks| self.beyond(sinks) < SPARE).unwrap_or(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Seen};

    fn seen(shares: [f64; FIRST]) -> Seen {
        // two heads that differ, of two layers
        let head = |by: f64| shares.map(|share| share * by).to_vec();
        let layer = vec![head(0.5), head(1.5)];
        Seen { queries: 1, fair: 0.003, shares: vec![layer.clone(), layer] }
    }

    #[test]
    fn as_many_sinks_as_draw_more_than_others_do() {
        let fair = [0.003; FIRST];
        assert_eq!(seen(fair).sinks(), 0, "a model without sinks needs none");
        assert_eq!(seen([0.001; FIRST]).sinks(), 0);
        let with = |shares: &[f64]| {
            let mut all = fair;
            all[..shares.len()].copy_from_slice(shares);
            seen(all).sinks()
        };
        assert_eq!(with(&[0.6]), 1);
        assert_eq!(with(&[0.01]), 0, "0.7 % is less than 1 %");
        assert_eq!(with(&[0.2, 0.1, 0.1, 0.05]), 4);
        assert_eq!(with(&[0.003, 0.003, 0.3]), 3, "what lies before a sink is kept with it");
        assert_eq!(seen([0.1; FIRST]).sinks(), FIRST);
        // many that draw a little draw much together
        assert_eq!(with(&[0.5, 0.007, 0.007, 0.007]), 2);
    }
}
