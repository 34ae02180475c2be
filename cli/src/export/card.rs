//! The model card of an exported folder.
//!
//! In:    the run's recipe, figures and data; what was written and compared.
//! Out:   `README.md` with the front matter that model hubs read.
//! Never: states what is not known.

use std::fmt::Write;

use checkpoints::source::Place;
use checkpoints::stream::Format;
use planner::plan::{MethodPlan, Plan};
use trainer::export::{Beside, Report, Target};

use super::facts::{Figures, HeldOut, data, licence};
use super::found::{Found, Run};

/// What a card is about.
pub struct Subject<'a> {
    /// What was exported.
    pub found: &'a Found,
    /// As what.
    pub target: &'a Target,
    /// What was compared.
    pub report: &'a Report,
}

/// The whole card. `own_template`: the chat template is the one of training, not the base's.
pub fn text(subject: &Subject<'_>, own_template: bool) -> String {
    let found = subject.found;
    let mut parts = vec![front_matter(subject), opening(subject)];
    parts.push(base(found));
    if let Some(run) = &found.run {
        let figures = Figures::read(&run.directory, run.checkpoint.as_deref().and_then(step_of));
        parts.push(data_section(run, &figures));
        parts.push(figures_section(run, &figures));
    }
    parts.push(loading(subject, own_template));
    parts.push(compared(subject));
    if let Some(run) = &found.run {
        parts.push(format!("## Recipe\n```toml\n{}\n```\n", run.recipe.to_toml().trim_end()));
    }
    parts.join("\n")
}

fn step_of(checkpoint: &str) -> Option<u64> {
    checkpoint.strip_prefix("step-")?.parse().ok()
}

/// Only keys that hubs know, only values that are known.
fn front_matter(subject: &Subject<'_>) -> String {
    let found = subject.found;
    let mut lines = vec!["---".to_string()];
    if let Some(name) = found.base_name.as_deref().filter(|name| is_hub_name(name)) {
        lines.push(format!("base_model: {name}"));
    }
    if let Some(licence) = licence(&found.base) {
        lines.push(format!("license: {licence}"));
    }
    let (library, tag) = match (subject.target, found.is_full()) {
        (Target::Peft { .. }, _) => ("peft", "lora"),
        (Target::GgufAdapter { .. }, _) => ("gguf", "lora"),
        (Target::Folder { .. }, true) => ("transformers", "full-fine-tune"),
        (Target::Folder { .. }, false) => ("transformers", "merged-lora"),
        (Target::Gguf { .. }, true) => ("gguf", "full-fine-tune"),
        (Target::Gguf { .. }, false) => ("gguf", "merged-lora"),
    };
    lines.push(format!("library_name: {library}"));
    lines.push("pipeline_tag: text-generation".to_string());
    lines.push(format!("tags:\n- {tag}\n- tune\n---\n"));
    lines.join("\n")
}

/// `owner/name`, not a path.
fn is_hub_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let parts: Vec<&str> = name.split('/').collect();
    let is_local = matches!(Place::parse(name), Ok(Place::Local(path)) if path.exists());
    parts.len() == 2
        && parts.iter().all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain))
        && !is_local
}

fn opening(subject: &Subject<'_>) -> String {
    let found = subject.found;
    let title = found.run.as_ref().map_or("adapter", |run| run.recipe.name.as_str());
    let base = found.base_name.as_deref().unwrap_or("its base model");
    let what = match (subject.target, found.is_full()) {
        (Target::Peft { .. }, _) => format!("A LoRA adapter for {base}, in PEFT's layout, f32."),
        (Target::GgufAdapter { kind, .. }, _) => format!("A LoRA adapter for {base}, as a GGUF file in {kind:?}."),
        (Target::Folder { format, .. }, true) => format!("{base} with every weight trained, in {}.", format.name()),
        (Target::Gguf { mix, .. }, true) => {
            format!("{base} with every weight trained, as a GGUF file in {}.", mix.name())
        }
        (Target::Folder { format, .. }, false) => merged_words(base, format.name()),
        (Target::Gguf { mix, .. }, false) => merged_words(base, mix.name()),
    };
    let state = match found.run.as_ref().and_then(|run| run.checkpoint.as_deref()) {
        Some(checkpoint) => format!(" This is checkpoint {checkpoint} of the run, not its end."),
        None => String::new(),
    };
    format!("# {title}\n{what}{state} Trained and written by tune {}.\n", env!("CARGO_PKG_VERSION"))
}

fn merged_words(base: &str, format: &str) -> String {
    format!("{base} with a LoRA adapter merged into it: `W + scale * B A`, summed in f32 and rounded once to {format}.")
}

fn base(found: &Found) -> String {
    let spec = match &found.run {
        Some(run) => &run.plan.model.spec,
        None => found.base.spec(),
    };
    let name = found.base_name.as_deref().unwrap_or("not named by the adapter");
    let mut text = format!("## Base model\n`{name}`: {:?}, {} parameters.", spec.family, spec.parameters());
    if let (Some(file), false) = (found.base.gguf(), found.is_full()) {
        let kinds = quantised(file);
        let _ = write!(
            text,
            " It is a GGUF file ({kinds}); training saw its weights as f32 after dequantisation, and the adapter belongs to those. Over another \
             file of the same model (16 bits, or other blocks) it gives somewhat other results."
        );
    }
    if let Some(licence) = licence(&found.base) {
        let _ = write!(text, " Its files state the licence {licence}.");
    }
    text + "\n"
}

/// The block formats of a file, the commonest first.
fn quantised(file: &checkpoints::gguf::File) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for tensor in file.tensors() {
        let name = format!("{:?}", tensor.kind).to_uppercase();
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(name, count)| format!("{count} tensors {name}")).collect::<Vec<_>>().join(", ")
}

fn data_section(run: &Run, figures: &Figures) -> String {
    let mut text = "## Data\n".to_string();
    match data(&run.directory) {
        Some(report) => {
            text.push_str("| source | rows | tokens | trained tokens |\n|---|---|---|---|\n");
            for source in &report.sources {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} |",
                    cell(&source.name),
                    source.rows,
                    source.tokens,
                    source.trained_tokens
                );
            }
            let _ = writeln!(
                text,
                "\nTrained on {} rows of {} tokens, {} of them trained; {} rows were held out.",
                report.rows, report.tokens, report.trained_tokens, report.held_out_rows
            );
        }
        None => {
            for source in &run.plan.data.sources {
                let _ = writeln!(text, "- `{}`", source.path.display());
            }
        }
    }
    let _ = writeln!(
        text,
        "{} tokens went through the model in training, {} of them trained.",
        figures.tokens, figures.trained_tokens
    );
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn figures_section(run: &Run, figures: &Figures) -> String {
    let mut text = format!("## Training\n{}\n", method(&run.plan));
    if let Some((first, last)) = figures.training_loss {
        let _ =
            writeln!(text, "{} steps; training loss {first:.4} in the first, {last:.4} in the last.", figures.steps);
    }
    if figures.before.is_none() && figures.after.is_none() {
        text.push_str("Nothing was measured on held-out rows.\n");
        return text;
    }
    let step = figures.after.map_or("tuned".to_string(), |(step, _)| format!("after step {step}"));
    let after = figures.after.map(|(_, after)| after);
    let _ = writeln!(text, "\n| held-out rows | base model | {step} |\n|---|---|---|");
    let row = |text: &mut String, name: &str, value: fn(&HeldOut) -> Option<String>| {
        let side = |held_out: &Option<HeldOut>| held_out.as_ref().and_then(value);
        let (before, after) = (side(&figures.before), side(&after));
        if before.is_some() || after.is_some() {
            let shown = |side: Option<String>| side.unwrap_or_else(|| "not measured".to_string());
            let _ = writeln!(text, "| {name} | {} | {} |", shown(before), shown(after));
        }
    };
    row(&mut text, "rows", |held_out| Some(held_out.rows.to_string()));
    row(&mut text, "loss", |held_out| Some(format!("{:.4}", held_out.loss)));
    row(&mut text, "perplexity", |held_out| Some(format!("{:.3}", held_out.loss.exp())));
    row(&mut text, "exact answers, greedy", |held_out| held_out.exact.map(|(right, of)| format!("{right} of {of}")));
    text
}

fn method(plan: &Plan) -> String {
    match &plan.method {
        MethodPlan::Lora(lora) => {
            let targets: Vec<&str> = lora.targets.iter().map(|target| target.leaf()).collect();
            format!(
                "LoRA of rank {}, alpha {}{}, dropout {}, on {}; the base in {:?}.",
                lora.rank,
                lora.alpha,
                if lora.rank_stabilized { " (rsLoRA: scale alpha / sqrt(rank))" } else { "" },
                lora.dropout,
                targets.join(", "),
                plan.model.precision
            )
        }
        MethodPlan::Full(full) => format!(
            "All weights of blocks and norms{}{}, computed in {:?}.",
            if full.embeddings { ", the embedding" } else { "" },
            if full.head { ", the head" } else { "" },
            plan.model.precision
        ),
    }
}

fn loading(subject: &Subject<'_>, own_template: bool) -> String {
    let base = subject.found.base_name.as_deref().unwrap_or("BASE");
    let how = match subject.target {
        Target::Peft { .. } => format!(
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             base = AutoModelForCausalLM.from_pretrained(\"{base}\")\n\
             tokenizer = AutoTokenizer.from_pretrained(\"{base}\")\n\
             model = PeftModel.from_pretrained(base, \"THIS FOLDER\")\n```\n\
             vLLM: `--enable-lora --lora-modules NAME=THIS_FOLDER`, with `--max-lora-rank` at least the rank.\n"
        ),
        Target::Folder { format, .. } => format!(
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             model = AutoModelForCausalLM.from_pretrained(\"THIS FOLDER\", dtype=\"{}\")\n\
             tokenizer = AutoTokenizer.from_pretrained(\"THIS FOLDER\")\n```\n",
            torch_name(*format)
        ),
        Target::Gguf { beside, .. } => with_ollama(beside, "llama-cli -m THIS_FILE.gguf"),
        Target::GgufAdapter { beside, .. } => with_ollama(beside, "llama-cli -m BASE.gguf --lora THIS_FILE.gguf"),
    };
    let after = match (subject.target, own_template) {
        (_, false) => "",
        (Target::Peft { .. } | Target::GgufAdapter { .. }, true) => {
            "Training wrote conversations with a chat template of its own (`data.chat_template` in the recipe below), not the base's: serve with that one."
        }
        (_, true) => "Its chat template is the one that training used, not the base's.",
    };
    format!("## How to load it\n{how}{after}\n")
}

fn with_ollama(beside: &Beside, command: &str) -> String {
    let ollama = if *beside == Beside::Nothing { "" } else { "ollama create NAME -f Modelfile\n" };
    format!("```\n{command}\n{ollama}```\n")
}

fn torch_name(format: Format) -> &'static str {
    match format {
        Format::F32 => "float32",
        Format::F16 => "float16",
        _ => "bfloat16",
    }
}

/// What was compared before the folder was published.
fn compared(subject: &Subject<'_>) -> String {
    let Report { tensors, token_ids, logits, .. } = subject.report;
    let ids =
        token_ids.map_or(String::new(), |ids| format!(" {ids} token ids of fixed texts equal those of training."));
    format!(
        "## Compared before publishing\nRead back from this folder: {tensors} tensors equal what was meant, bit for bit.{ids} Logits of a fixed prompt of {} \
         tokens against the trained model (base and adapter apart, in f32): {}; the preferred next token is the same after {} of {}.\n",
        logits.positions,
        super::difference(logits),
        logits.same_next_token,
        logits.positions
    )
}
