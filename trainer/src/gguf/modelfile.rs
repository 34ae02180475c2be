//! The Modelfile that makes Ollama serve an export as it was trained.
//!
//! In:    the names of the GGUF files beside it, the template trained with.
//! Out:   the text of a Modelfile.
//! Never: writes a TEMPLATE that says something else than the one trained with: then the GGUF file's own stays in force.

use datasets::ServedTemplate;

/// GGUF files by their names beside the Modelfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OllamaFiles<'a> {
    /// A whole model.
    Model {
        /// File name.
        model: &'a str,
    },
    /// A base model and an adapter.
    Adapter {
        /// File name, or the name of a model that Ollama has.
        base: &'a str,
        /// File name.
        adapter: &'a str,
    },
}

/// The text, and what the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modelfile {
    /// What stands in the file.
    pub text: String,
    /// Remarks.
    pub notes: Vec<String>,
}

/// Writes the Modelfile's text.
pub fn modelfile(files: OllamaFiles<'_>, template: Option<&ServedTemplate<'_>>) -> Modelfile {
    let mut text = match files {
        OllamaFiles::Model { model } => format!("FROM {}\n", place(model)),
        OllamaFiles::Adapter { base, adapter } => format!("FROM {}\nADAPTER {}\n", place(base), place(adapter)),
    };
    let mut notes = Vec::new();
    match template.map(ServedTemplate::go) {
        Some(Ok(go)) => {
            text.push_str(&format!("TEMPLATE \"\"\"{}\"\"\"\n", go.text));
            notes.extend(go.notes);
        }
        Some(Err(reason)) => notes.push(format!(
            "the Modelfile has no TEMPLATE, since {reason}; the Jinja template inside the GGUF file stays in force"
        )),
        None => notes.push("the model has no chat template, so the Modelfile has none".to_string()),
    }
    for stop in template.map(ServedTemplate::stops).unwrap_or_default() {
        match stop.contains(['"', '\n', '\\']) {
            true => notes.push(format!("{stop:?} ends an answer, but a Modelfile cannot say so")),
            false => text.push_str(&format!("PARAMETER stop \"{stop}\"\n")),
        }
    }
    Modelfile { text, notes }
}

/// Files beside the Modelfile are told from names of Ollama's own models by `./`.
fn place(name: &str) -> String {
    if name.ends_with(".gguf") && !name.contains('/') { format!("./{name}") } else { name.to_string() }
}
