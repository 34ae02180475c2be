//! `[optimizer]`: the update rule and its numbers.
//!
//! In:    the keys as written.
//! Out:   [`OptimizerSection`] with every number of its kind, or one sentence: which key belongs to another kind.
//! Never: a default for the learning rate; a number without effect.

use serde::{Deserialize, Serialize};

use crate::defaults;
use crate::values::MaxGradNorm;

/// `[optimizer]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OptimizerKeys", into = "OptimizerKeys")]
pub struct OptimizerSection {
    /// Update rule.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first and second moment (AdamW), or weight of the update and decay of the momentum (Lion); zeros without effect with
    /// the other kinds.
    pub betas: [f64; 2],
    /// Added to the root of the second moment (AdamW) or to squared gradients (Adafactor); 0 without effect with the other kinds.
    pub epsilon: f64,
    /// Decay of the velocity (SGD); 0 keeps no state.
    pub momentum: f64,
    /// Decoupled weight decay of matrices; norms and biases do not decay.
    pub weight_decay: f64,
    /// Bound of the global gradient norm.
    pub max_grad_norm: MaxGradNorm,
}

/// `optimizer.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW as PyTorch computes it, moments in f32.
    Adamw,
    /// AdamW with moments in 8 bits, one scale per 256 numbers.
    Adamw8bit,
    /// AdamW with moments in bf16, rounded stochastically.
    AdamwBf16,
    /// Lion: the sign of a blend of gradient and momentum.
    Lion,
    /// Adafactor: the second moment as rows and columns.
    Adafactor,
    /// Gradient descent, with momentum if asked.
    Sgd,
}

impl OptimizerKind {
    /// The kind's word in a recipe.
    pub fn word(self) -> &'static str {
        match self {
            OptimizerKind::Adamw => "adamw",
            OptimizerKind::Adamw8bit => "adamw8bit",
            OptimizerKind::AdamwBf16 => "adamw_bf16",
            OptimizerKind::Lion => "lion",
            OptimizerKind::Adafactor => "adafactor",
            OptimizerKind::Sgd => "sgd",
        }
    }

    /// `optimizer.betas` has a meaning.
    pub fn has_betas(self) -> bool {
        !matches!(self, OptimizerKind::Adafactor | OptimizerKind::Sgd)
    }

    /// `optimizer.epsilon` has a meaning.
    pub fn has_epsilon(self) -> bool {
        !matches!(self, OptimizerKind::Lion | OptimizerKind::Sgd)
    }

    /// `optimizer.momentum` has a meaning.
    pub fn has_momentum(self) -> bool {
        self == OptimizerKind::Sgd
    }
}

/// The section as it stands in the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizerKeys {
    kind: OptimizerKind,
    learning_rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    betas: Option<[f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    momentum: Option<f64>,
    #[serde(default)]
    weight_decay: f64,
    #[serde(default = "defaults::max_grad_norm")]
    max_grad_norm: MaxGradNorm,
}

/// Keys that `kind` does not know; none for a kind that is not known itself.
pub(crate) fn keys_foreign_to(kind: &str) -> &'static [&'static str] {
    match kind {
        "adamw" | "adamw8bit" | "adamw_bf16" => &["momentum"],
        "lion" => &["epsilon", "momentum"],
        "adafactor" => &["betas", "momentum"],
        "sgd" => &["betas", "epsilon"],
        _ => &[],
    }
}

impl TryFrom<OptimizerKeys> for OptimizerSection {
    type Error = String;

    fn try_from(keys: OptimizerKeys) -> Result<Self, String> {
        let kind = keys.kind;
        let refuse = |key: &str, owners: &str| {
            let kind = kind.word();
            Err(format!("optimizer.{key} belongs to {owners}; leave it out with optimizer.kind = \"{kind}\""))
        };
        if keys.betas.is_some() && !kind.has_betas() {
            return refuse("betas", "the AdamW kinds and \"lion\"");
        }
        if keys.epsilon.is_some() && !kind.has_epsilon() {
            return refuse("epsilon", "the AdamW kinds and \"adafactor\"");
        }
        if keys.momentum.is_some() && !kind.has_momentum() {
            return refuse("momentum", "\"sgd\"");
        }
        Ok(OptimizerSection {
            kind,
            learning_rate: keys.learning_rate,
            betas: keys.betas.unwrap_or_else(|| defaults::betas(kind)),
            epsilon: keys.epsilon.unwrap_or_else(|| defaults::epsilon(kind)),
            momentum: keys.momentum.unwrap_or_default(),
            weight_decay: keys.weight_decay,
            max_grad_norm: keys.max_grad_norm,
        })
    }
}

impl From<OptimizerSection> for OptimizerKeys {
    fn from(section: OptimizerSection) -> OptimizerKeys {
        let kind = section.kind;
        OptimizerKeys {
            kind,
            learning_rate: section.learning_rate,
            betas: kind.has_betas().then_some(section.betas),
            epsilon: kind.has_epsilon().then_some(section.epsilon),
            momentum: kind.has_momentum().then_some(section.momentum),
            weight_decay: section.weight_decay,
            max_grad_norm: section.max_grad_norm,
        }
    }
}
