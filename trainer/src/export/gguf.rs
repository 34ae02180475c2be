//! GGUF targets of an export: the merged model, the adapter alone, and a Modelfile beside either.
//!
//! In:    a trained model, a mix of formats, an empty staging folder.
//! Out:   the files, read back and compared: tensors, token ids, and logits of the file as this program's own loader opens it.
//! Never: a file that llama.cpp reads otherwise than the loader here, as far as `tests/peers/gguf_elsewhere.py` knows.

use std::path::Path;

use checkpoints::gguf::{BlockType, File, Mix};
use checkpoints::peft::{Adapter, AdapterConfig, LoraPair};
use checkpoints::stream::SourceError;
use checkpoints::tensors::HostTensor;
use checkpoints::weights::{Weights, names};
use datasets::ServedTemplate;
use offload::durable::write_staged;
use planner::architecture::{DecoderSpec, Family, Linear};

use super::logits::Bound;
use super::{Export, ExportError, Report};
use crate::gguf::{
    AdapterFile, Compared, ModelFile, OllamaFiles, check_adapter, check_model, modelfile, write_adapter, write_model,
};
use crate::network::Tuned;

/// The file that Ollama reads first.
const MODELFILE: &str = "Modelfile";

/// Whether a Modelfile for Ollama stands beside the GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// The GGUF file alone.
    Nothing,
    /// A Modelfile; of an adapter it names this base: a GGUF file, or a model that Ollama has.
    Modelfile {
        /// `FROM` of an adapter; unused with a whole model.
        from: String,
    },
}

impl Export<'_> {
    pub(super) fn gguf_model(
        &self,
        name: &str,
        mix: Mix,
        beside: &Beside,
        staging: &Path,
    ) -> Result<Report, ExportError> {
        let merged = self.merged()?;
        let mut source = |tensor: &str| -> Result<Vec<f32>, SourceError> { Ok(merged.read_as_stored(tensor)?.data) };
        let file = ModelFile { model: self.base, mix, name, chat_template: self.template.as_deref() };
        let file_name = format!("{name}-{}.gguf", mix.name().to_lowercase());
        let path = staging.join(&file_name);
        let written = write_model(&path, &file, &mut source)?;
        let compared = check_model(&path, &file, &mut source)?;
        let logits = self.compare_logits(&Weights::open(&path)?, &Tuned::Nothing, Bound::Mixed(mix))?;
        let mut notes = written.notes;
        if *beside != Beside::Nothing {
            notes.extend(self.modelfile(OllamaFiles::Model { model: &file_name }, staging)?);
        }
        let token_ids = Some(compared.tokens);
        Ok(Report { bytes: written.bytes, token_ids, notes, ..report(compared, logits) })
    }

    pub(super) fn gguf_adapter(
        &self,
        name: &str,
        kind: BlockType,
        beside: &Beside,
        staging: &Path,
    ) -> Result<Report, ExportError> {
        let Tuned::Adapter(adapter) = &self.tuned else { return Err(ExportError::NoAdapter) };
        let file = AdapterFile { model: self.base, name, kind };
        let file_name = format!("{name}-adapter-{}.gguf", format!("{kind:?}").to_lowercase());
        let path = staging.join(&file_name);
        let written = write_adapter(&path, &file, adapter)?;
        let compared = check_adapter(&path, &file, adapter)?;
        let read = read_back(&path, self.base.spec())?;
        let logits = self.compare_logits(self.base, &Tuned::Adapter(Box::new(read)), Bound::Factors(kind))?;
        let mut notes = written.notes;
        if let Beside::Modelfile { from } = beside {
            notes.extend(self.modelfile(OllamaFiles::Adapter { base: from, adapter: &file_name }, staging)?);
        }
        Ok(Report { bytes: written.bytes, notes, ..report(compared, logits) })
    }

    /// Writes the Modelfile; what the user should know.
    fn modelfile(&self, files: OllamaFiles<'_>, staging: &Path) -> Result<Vec<String>, ExportError> {
        let served = match &self.tokenizer {
            Some(tokenizer) => ServedTemplate::of(&self.data, tokenizer)?,
            None => None,
        };
        let written = modelfile(files, served.as_ref());
        write_staged(&staging.join(MODELFILE), written.text.as_bytes())?;
        Ok(written.notes)
    }
}

fn report(compared: Compared, logits: super::LogitsReport) -> Report {
    let errors = compared.errors.iter().map(|(kind, error)| (format!("{kind:?}"), *error)).collect();
    Report { tensors: compared.tensors, errors, bytes: 0, token_ids: None, logits, notes: Vec::new() }
}

/// An adapter file in PEFT's words: rows of q and k in Hugging Face order, the scale as llama.cpp computes it.
fn read_back(path: &Path, spec: &DecoderSpec) -> Result<Adapter, ExportError> {
    let file = File::open(path).map_err(checkpoints::weights::WeightsError::from)?;
    let read = |name: String| -> Result<Option<HostTensor>, ExportError> {
        let Some(info) = file.tensor(&name) else { return Ok(None) };
        let data = file.read(&name).map_err(checkpoints::weights::WeightsError::from)?;
        Ok(Some(HostTensor { shape: info.shape.clone(), data }))
    };
    let mut pairs = std::collections::BTreeMap::new();
    for layer in 0..spec.n_layers() {
        for linear in Linear::ALL {
            let (module, weight) = (linear.path(layer), format!("{}.weight", linear.path(layer)));
            let Some(own) = names::gguf(&weight, spec.family) else { continue };
            let (Some(a), Some(mut b)) = (read(format!("{own}.lora_a"))?, read(format!("{own}.lora_b"))?) else {
                continue;
            };
            let is_llama = matches!(spec.family, Family::Llama | Family::Mistral);
            if let Some(heads) = names::rotary_heads(&weight, spec).filter(|_| is_llama) {
                b.data = names::unpermuted(&b.data, heads, spec.head_dim);
            }
            pairs.insert(module, LoraPair { a, b });
        }
    }
    let rank = pairs.values().map(|pair| pair.a.shape[0]).max().unwrap_or(1);
    let alpha = file.metadata().f32("adapter.lora.alpha").ok().flatten().unwrap_or(0.0);
    let config = AdapterConfig {
        base_model: None,
        rank,
        alpha: f64::from(alpha),
        dropout: 0.0,
        target_modules: Vec::new(),
        rank_stabilized: false,
    };
    Ok(Adapter { config, pairs })
}
