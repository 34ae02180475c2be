//! What a run trained, as files that other programs load; read back and compared before they count.
//!
//! In:    the base model's files, what training changed, an empty staging folder.
//! Out:   the filled folder and an account of what was compared ([`Report`]); the caller publishes it.
//! Never: publishes; calls an export done that differs from what was meant.
//!
//! Three comparisons, each with the files as they were written: every tensor, bit for bit, with what was meant; token ids of fixed texts;
//! logits of a fixed prompt with those of the trained model itself, base and adapter apart, in f32.

mod error;
mod gguf;
mod logits;
mod tensors;
#[cfg(test)]
mod tests;
mod tokens;

use std::path::Path;

use checkpoints::gguf::{BlockType, Mix};
use checkpoints::merged::{Change, Merged};
use checkpoints::model_folder::{SideFile, stage_model};
use checkpoints::narrow::whole;
use checkpoints::peft::{AdapterConfig, adapter_of, read_adapter, stage_adapter};
use checkpoints::stream::{Format, StreamedTensor};
use checkpoints::weights::Weights;
use datasets::{DataError, ServedTemplate, Tokenizer};
use planner::plan::{DataPlan, MethodPlan};

use crate::error::TrainError;
use crate::model_folder::files_beside;
use crate::network::Tuned;
use crate::state::PARAMETER;
use crate::survive::adapter_config;

pub use error::ExportError;
pub use gguf::Beside;
pub use logits::{Bound, LogitsReport, Measure, Workshop};

/// A trained model: what it began as, what training made of it, and where it can be tried.
#[derive(Debug)]
pub struct Export<'a> {
    base: &'a Weights,
    tuned: Tuned,
    data: DataPlan,
    tokenizer: Option<Tokenizer>,
    /// The chat template that training used, where it is another than the tokenizer's own.
    template: Option<String>,
    workshop: Workshop,
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The adapter alone, in PEFT's layout.
    Peft {
        /// Written as the model that the adapter belongs to.
        base_name: Option<String>,
    },
    /// The whole model as a Hugging Face folder.
    Folder {
        /// Number format of the weights.
        format: Format,
        /// Largest file of weights.
        shard_bytes: u64,
    },
    /// The whole model as a GGUF file.
    Gguf {
        /// Of the file, and inside it.
        name: String,
        /// Storage formats.
        mix: Mix,
        /// A Modelfile or nothing.
        beside: Beside,
    },
    /// The adapter alone as a GGUF file.
    GgufAdapter {
        /// Of the file, and inside it.
        name: String,
        /// F32, F16 or BF16.
        kind: BlockType,
        /// A Modelfile or nothing.
        beside: Beside,
    },
}

/// What was compared with the files as they were written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// Tensors, each equal to what was meant, bit for bit.
    pub tensors: usize,
    /// In a GGUF file: for each format the largest error of a tensor against the trained numbers, as a share of their size.
    pub errors: Vec<(String, f32)>,
    /// Bytes of their files.
    pub bytes: u64,
    /// Token ids of the fixed texts, each equal; `None` where there is no tokenizer, or the target holds none.
    pub token_ids: Option<usize>,
    /// Logits of the fixed prompt.
    pub logits: LogitsReport,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl<'a> Export<'a> {
    /// `data` is how the run read its rows; an adapter by itself has none, and the base's own template counts.
    pub fn new(
        base: &'a Weights,
        tuned: Tuned,
        data: Option<&DataPlan>,
        workshop: Workshop,
    ) -> Result<Export<'a>, ExportError> {
        let tokenizer = tokenizer(base)?;
        let template = match (data, &tokenizer) {
            (Some(data), Some(tokenizer)) => {
                let served = ServedTemplate::of(data, tokenizer)?;
                served.map(|served| served.source().to_string()).filter(|text| tokenizer.chat_template() != Some(text))
            }
            _ => None,
        };
        let data = data.cloned().unwrap_or_else(|| DataPlan::of(Vec::new(), 1));
        let tuned = as_adapter(tuned)?;
        let export = Export { base, tuned, data, tokenizer, template, workshop };
        export.merged()?;
        Ok(export)
    }

    /// Whether the exported model carries another chat template than its base: the one that training used.
    pub fn has_own_template(&self) -> bool {
        self.template.is_some()
    }

    /// The merged tensors, checked against the base.
    pub fn merged(&self) -> Result<Merged<'_>, ExportError> {
        let change = match &self.tuned {
            Tuned::Nothing | Tuned::Start => Change::Nothing,
            Tuned::Adapter(adapter) => Change::Adapter(adapter),
            Tuned::Checkpoint(kept, _) => Change::Tensors { file: &kept.tensors, prefix: PARAMETER },
        };
        Ok(Merged::new(self.base, change)?)
    }

    /// Fills `staging` and compares it with what was meant. Nothing outside it is written.
    pub fn write(&self, target: &Target, staging: &Path) -> Result<Report, ExportError> {
        match target {
            Target::Peft { base_name } => self.adapter(base_name.clone(), staging),
            Target::Folder { format, shard_bytes } => self.folder(*format, *shard_bytes, staging),
            Target::Gguf { name, mix, beside } => self.gguf_model(name, *mix, beside, staging),
            Target::GgufAdapter { name, kind, beside } => self.gguf_adapter(name, *kind, beside, staging),
        }
    }

    fn adapter(&self, base_name: Option<String>, staging: &Path) -> Result<Report, ExportError> {
        let Tuned::Adapter(adapter) = &self.tuned else { return Err(ExportError::NoAdapter) };
        let config = AdapterConfig {
            base_model: base_name.or_else(|| adapter.config.base_model.clone()),
            target_modules: adapter.target_modules(self.base.spec().n_layers()),
            ..adapter.config.clone()
        };
        stage_adapter(staging, &config, &adapter.tensors())?;
        let read = read_adapter(staging)?;
        let (tensors, bytes) = tensors::compare_adapters(adapter, &read, staging)?;
        let logits = self.compare_logits(self.base, &Tuned::Adapter(Box::new(read)), Bound::SameBits)?;
        Ok(Report { tensors, errors: Vec::new(), bytes, token_ids: None, logits, notes: Vec::new() })
    }

    fn folder(&self, format: Format, shard_bytes: u64, staging: &Path) -> Result<Report, ExportError> {
        let merged = self.merged()?;
        let tensors = self.base.spec().tensors().into_iter().map(|(name, shape)| {
            let (merged, own) = (&merged, name.clone());
            let fill = whole(format, move || Ok(merged.read(&own)?.data));
            StreamedTensor { name, shape, format, fill }
        });
        stage_model(staging, tensors.collect(), &self.files_beside(format)?, shard_bytes)?;
        let written = Weights::open(staging)?;
        let (tensors, bytes) = tensors::compare_model(&merged, &written, format)?;
        let token_ids = match &self.tokenizer {
            Some(ours) => Some(tokens::compare(ours, self.template.as_deref(), &crate::load::tokenizer(&written)?)?),
            None => None,
        };
        let logits = self.compare_logits(&written, &Tuned::Nothing, Bound::Rounded(format))?;
        Ok(Report { tensors, errors: Vec::new(), bytes, token_ids, logits, notes: Vec::new() })
    }

    /// Config, tokenizer and the template that training used.
    fn files_beside(&self, format: Format) -> Result<Vec<SideFile>, ExportError> {
        let mut files = files_beside(self.base, format, self.tokenizer.as_ref())?;
        if let Some(template) = &self.template {
            files.retain(|file| file.name != tokens::TEMPLATE_FILE);
            files.push(SideFile { name: tokens::TEMPLATE_FILE.to_string(), bytes: template.clone().into_bytes() });
            for file in files.iter_mut().filter(|file| file.name == "tokenizer_config.json") {
                file.bytes = tokens::with_template(&file.bytes, template);
            }
        }
        Ok(files)
    }

    fn compare_logits(&self, weights: &Weights, tuned: &Tuned, bound: Bound) -> Result<LogitsReport, ExportError> {
        let prompt = tokens::prompt(self.tokenizer.as_ref(), self.base.spec().vocabulary)?;
        let ours = self.workshop.logits(self.base, &self.tuned, &prompt)?;
        let theirs = self.workshop.logits(weights, tuned, &prompt)?;
        logits::compare(&ours, &theirs, bound)
    }
}

/// A checkpoint of a LoRA run as the adapter that it holds.
fn as_adapter(tuned: Tuned) -> Result<Tuned, ExportError> {
    match tuned {
        Tuned::Checkpoint(kept, MethodPlan::Lora(plan)) => {
            let adapter = adapter_of(adapter_config(&plan, None), &kept.tensors, PARAMETER)?;
            Ok(Tuned::Adapter(Box::new(adapter)))
        }
        other => Ok(other),
    }
}

/// The base's tokenizer. One that is there must be usable; adapters are also trained on models that lie here without one.
fn tokenizer(base: &Weights) -> Result<Option<Tokenizer>, ExportError> {
    if base.gguf().is_some_and(|file| file.metadata().get("tokenizer.ggml.model").is_none()) {
        return Ok(None);
    }
    match crate::load::tokenizer(base) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(TrainError::Data(DataError::NoTokenizerFile { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
