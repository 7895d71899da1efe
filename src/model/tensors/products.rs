//! The products of a model.
use super::{Role, list};
use crate::Result;
use crate::format::{DType, Gguf};
use crate::model::Config;
use crate::ops::{Epilogue, Product};

/// What a model multiplies with: known from its file's head, before any weight has come.
#[derive(Clone, Default)]
pub(crate) struct Products {
    /// Types of the embedding.
    pub(crate) embedding: Vec<DType>,
    /// The products of the layers, each kind once.
    pub(crate) layers: Vec<Product>,
    /// The products of experts.
    pub(crate) experts: Vec<Product>,
    /// The products that give the logits.
    pub(crate) output: Vec<Product>,
    /// Whether a product that is added to the residual stream has a bias.
    pub(crate) residual_bias: bool,
}

impl Products {
    pub(crate) fn of(gguf: &Gguf, config: &Config) -> Result<Self> {
        let mut found = Self::default();
        let weights = list(config, gguf);
        let biases = weights.iter().filter(|weight| weight.role == Role::Vector);
        let biases: Vec<_> = biases.filter(|bias| bias.is_there(gguf)).collect();
        for weight in &weights {
            if weight.role == Role::Product(Epilogue::Add) {
                let bias = format!("{}.bias", weight.label);
                found.residual_bias |= biases.iter().any(|vector| vector.label == bias);
            }
            if matches!(weight.role, Role::Vector | Role::Host) {
                continue;
            }
            for tensor in weight.tensors(gguf)? {
                let dtype = tensor.dtype()?;
                if weight.role == Role::Embedding {
                    note(&mut found.embedding, dtype);
                }
                match weight.role {
                    Role::Experts(epilogue) => note(&mut found.experts, (epilogue, dtype)),
                    Role::Product(epilogue) => note(&mut found.layers, (epilogue, dtype)),
                    Role::Output => note(&mut found.output, (Epilogue::Store, dtype)),
                    Role::Embedding if config.tied => {
                        note(&mut found.output, (Epilogue::Store, dtype))
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// Adds what is not there yet.
fn note<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}
