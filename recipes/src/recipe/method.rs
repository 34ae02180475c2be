//! `[method]`: what is trained. One variant a kind, so that a LoRA recipe cannot carry keys of full training.
//!
//! In:    the keys as written, all of them optional but `kind`.
//! Out:   [`MethodSection`], or one sentence: which key is missing or belongs to another kind.
//! Never: a default for rank and alpha.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{defaults, values::TargetNames};

/// `[method]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MethodKeys", into = "MethodKeys")]
pub enum MethodSection {
    /// `kind = "lora"` or `"qlora"`: low-rank adapters on a frozen base.
    Lora(LoraSection),
    /// `kind = "full"`: every weight of the blocks and norms, and embedding and head unless switched off.
    Full(FullSection),
}

/// Keys of `kind = "lora"`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSection {
    /// Rank of the factors.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Share of adapter inputs dropped, `[0, 1)`.
    pub dropout: f64,
    /// Which linear layers get an adapter.
    pub targets: TargetNames,
    /// Scale `alpha / sqrt(rank)` (rsLoRA) instead of `alpha / rank`.
    pub rank_stabilized: bool,
    /// PEFT adapter folder to continue.
    pub start_from: Option<PathBuf>,
    /// How the frozen base is stored.
    pub base: BaseChoice,
}

/// How the frozen base of adapters is stored; `method.kind` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseChoice {
    /// `kind = "lora"`: in `model.precision`.
    Dense,
    /// `kind = "qlora"`: linear layers of blocks in 4-bit NormalFloat, scales quantised again.
    Nf4,
    /// `kind = "qlora"`, `bits = 8`: linear layers of blocks in 8-bit integers with a scale for each block of them.
    Int8,
}

/// Keys of `kind = "full"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullSection {
    /// The embedding is trained too.
    pub train_embeddings: bool,
    /// The head is trained too; with a tied head it is the embedding and both must be equal.
    pub train_head: bool,
}

impl MethodSection {
    /// The keys of LoRA, if that is the kind.
    pub fn lora(&self) -> Option<&LoraSection> {
        match self {
            MethodSection::Lora(lora) => Some(lora),
            MethodSection::Full(_) => None,
        }
    }

    /// As [`MethodSection::lora`], to change them.
    pub fn lora_mut(&mut self) -> Option<&mut LoraSection> {
        match self {
            MethodSection::Lora(lora) => Some(lora),
            MethodSection::Full(_) => None,
        }
    }
}

/// `method.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
enum MethodKind {
    Lora,
    Qlora,
    Full,
}

impl MethodKind {
    fn word(self) -> &'static str {
        match self {
            MethodKind::Lora => "lora",
            MethodKind::Qlora => "qlora",
            MethodKind::Full => "full",
        }
    }
}

impl TryFrom<String> for MethodKind {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "lora" => Ok(MethodKind::Lora),
            "full" => Ok(MethodKind::Full),
            "qlora" => Ok(MethodKind::Qlora),
            other => Err(format!("method.kind \"{other}\" is not known; \"lora\", \"qlora\" and \"full\" are")),
        }
    }
}

impl From<MethodKind> for String {
    fn from(kind: MethodKind) -> String {
        kind.word().to_string()
    }
}

/// The section as it stands in the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodKeys {
    kind: MethodKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alpha: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    targets: Option<TargetNames>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rank_stabilized: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_from: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bits: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train_embeddings: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train_head: Option<bool>,
}

/// Keys that only `kind = "lora"` and `"qlora"` know.
const LORA_KEYS: [&str; 7] = ["rank", "alpha", "dropout", "targets", "rank_stabilized", "start_from", "bits"];
/// Keys that only `kind = "full"` knows.
const FULL_KEYS: [&str; 2] = ["train_embeddings", "train_head"];

/// Keys that `kind` does not know; none for a kind that is not known itself.
pub(crate) fn keys_foreign_to(kind: &str) -> &'static [&'static str] {
    match kind {
        "lora" => &["train_embeddings", "train_head", "bits"],
        "qlora" => &FULL_KEYS,
        "full" => &LORA_KEYS,
        _ => &[],
    }
}

impl MethodKeys {
    const EMPTY: MethodKeys = MethodKeys {
        kind: MethodKind::Lora,
        rank: None,
        alpha: None,
        dropout: None,
        targets: None,
        rank_stabilized: None,
        start_from: None,
        bits: None,
        train_embeddings: None,
        train_head: None,
    };

    /// The first key that belongs to the other kind.
    fn foreign(&self) -> Option<&'static str> {
        let of_lora = [
            self.rank.is_some(),
            self.alpha.is_some(),
            self.dropout.is_some(),
            self.targets.is_some(),
            self.rank_stabilized.is_some(),
            self.start_from.is_some(),
            self.bits.is_some(),
        ];
        let of_full = [self.train_embeddings.is_some(), self.train_head.is_some()];
        let first = |names: &[&'static str], present: &[bool]| {
            names.iter().zip(present).find(|(_, present)| **present).map(|(name, _)| *name)
        };
        match self.kind {
            MethodKind::Lora | MethodKind::Qlora => first(&FULL_KEYS, &of_full),
            MethodKind::Full => first(&LORA_KEYS, &of_lora),
        }
    }
}

fn base(kind: MethodKind, bits: Option<u32>) -> Result<BaseChoice, String> {
    match (kind, bits) {
        (MethodKind::Qlora, None | Some(4)) => Ok(BaseChoice::Nf4),
        (MethodKind::Qlora, Some(8)) => Ok(BaseChoice::Int8),
        (MethodKind::Qlora, Some(bits)) => Err(format!("method.bits is {bits}; a base is kept in 4 or 8")),
        (_, None) => Ok(BaseChoice::Dense),
        (_, Some(_)) => Err("method.bits belongs to method.kind = \"qlora\"; leave it out with \"lora\"".to_string()),
    }
}

impl TryFrom<MethodKeys> for MethodSection {
    type Error = String;

    /// A missing key is worded as serde words it, so that an override may still supply it.
    fn try_from(keys: MethodKeys) -> Result<Self, String> {
        if let Some(key) = keys.foreign() {
            let own = keys.kind.word();
            let other = if keys.kind == MethodKind::Full { MethodKind::Lora.word() } else { MethodKind::Full.word() };
            return Err(format!("method.{key} belongs to method.kind = \"{other}\"; leave it out with \"{own}\""));
        }
        let kind = keys.kind.word();
        let missing = |key: &str| format!("missing field `{key}`, which method.kind = \"{kind}\" needs");
        Ok(match keys.kind {
            MethodKind::Lora | MethodKind::Qlora => MethodSection::Lora(LoraSection {
                base: base(keys.kind, keys.bits)?,
                rank: keys.rank.ok_or_else(|| missing("rank"))?,
                alpha: keys.alpha.ok_or_else(|| missing("alpha"))?,
                dropout: keys.dropout.unwrap_or_default(),
                targets: keys.targets.unwrap_or_else(defaults::targets),
                rank_stabilized: keys.rank_stabilized.unwrap_or_default(),
                start_from: keys.start_from,
            }),
            MethodKind::Full => MethodSection::Full(FullSection {
                train_embeddings: keys.train_embeddings.unwrap_or_else(defaults::trained),
                train_head: keys.train_head.unwrap_or_else(defaults::trained),
            }),
        })
    }
}

impl From<MethodSection> for MethodKeys {
    fn from(section: MethodSection) -> MethodKeys {
        match section {
            MethodSection::Lora(lora) => MethodKeys {
                kind: if lora.base == BaseChoice::Dense { MethodKind::Lora } else { MethodKind::Qlora },
                bits: (lora.base == BaseChoice::Int8).then_some(8),
                rank: Some(lora.rank),
                alpha: Some(lora.alpha),
                dropout: Some(lora.dropout),
                targets: Some(lora.targets),
                rank_stabilized: Some(lora.rank_stabilized),
                start_from: lora.start_from,
                ..MethodKeys::EMPTY
            },
            MethodSection::Full(full) => MethodKeys {
                kind: MethodKind::Full,
                train_embeddings: Some(full.train_embeddings),
                train_head: Some(full.train_head),
                ..MethodKeys::EMPTY
            },
        }
    }
}
