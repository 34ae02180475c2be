//! LLaMA-Factory's file.
//!
//! In:    its mapping.
//! Out:   the draft and the ledger, filled.
//! Never: `dataset_info.json`, which only names columns and files: data sets become placeholders with a note.

use toml::Value;

use super::axolotl::group;
use super::axolotl_files::placeholder;
use super::common::{self, Batches, Plain, Read, plain};
use super::common_tables::COMMON;
use super::draft::{Draft, HeldOut, Source, word};
use super::ledger::Ledger;
use super::llama_factory_tables as tables;
use super::optimizer::{optimizer, schedule, warmup};
use super::scope::{Found, Scope};
use super::targets::targets;
use super::tree::{one_line, shortened};
use super::{MigrateError, What};

/// Keys of LoRA, carried as they stand.
pub(super) const LORA: [Plain; 4] = [
    plain("lora_rank", "method.rank", Read::Count),
    plain("lora_alpha", "method.alpha", Read::Number),
    plain("lora_dropout", "method.dropout", Read::Number),
    plain("use_rslora", "method.rank_stabilized", Read::Flag),
];

/// Defaults of the tool and of transformers' `TrainingArguments`.
const RANK: u64 = 8;
const LEARNING_RATE: f64 = 5e-5;
const EPOCHS: f64 = 3.0;
const ROWS: u64 = 8;
const LENGTH: u64 = 2048;

/// Fills the draft.
pub(super) fn fill(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let pretraining = stage(scope, ledger)?;
    common::model(scope, ("model_name_or_path", "model_revision"), draft, ledger)?;
    common::precision(scope, &[("pure_bf16", "bf16"), ("bf16", "bf16"), ("fp16", "fp16")], draft, ledger)?;
    method(scope, draft, ledger)?;
    let length = scope.count("cutoff_len")?;
    let (micro, accumulation) =
        (scope.count("per_device_train_batch_size")?, scope.count("gradient_accumulation_steps")?);
    let batches = Batches { micro, micro_default: ROWS, accumulation, length, length_default: LENGTH };
    common::batches(scope, batches, draft, ledger)?;
    packing(scope, pretraining, draft, ledger)?;
    let why = "LLaMA-Factory cuts what is too long; where that cuts an answer, the gate truncated-answer refuses: \"drop\" leaves such rows out";
    draft.put_because("data.too_long", word("truncate"), why);
    turns(scope, draft, ledger)?;
    data(scope, pretraining, draft, ledger)?;
    common::duration(scope, "num_train_epochs", EPOCHS, draft, ledger)?;
    optimizer(scope, "optim", draft, ledger)?;
    common::carry_plain(scope, &common::PLAIN, draft, ledger)?;
    draft.put_default("optimizer.learning_rate", Value::Float(LEARNING_RATE));
    let used = schedule(scope, "lr_scheduler_type", "linear", draft, ledger)?;
    warmup(scope, used, None, draft, ledger)?;
    common::intervals(scope, draft, ledger)?;
    ledger.rest(scope, &[&tables::FILE, &COMMON]);
    Ok(())
}

fn no_such(scope: &Scope, found: &Found<String>, why: &'static str) -> MigrateError {
    MigrateError::NoSuchMethod {
        place: format!("{}:{}", scope.file, found.at.line),
        key: found.at.key.clone(),
        value: shortened(&one_line(&found.value), 60),
        why,
    }
}

/// Whether it is continued pre-training; what is neither that nor supervised fine-tuning is refused.
fn stage(scope: &Scope, ledger: &mut Ledger) -> Result<bool, MigrateError> {
    let Some(stage) = scope.text("stage")? else { return Ok(false) };
    match stage.value.as_str() {
        "sft" | "pt" => {
            ledger.carry(&stage.at, "data.sources.format");
            Ok(stage.value == "pt")
        }
        _ => Err(no_such(scope, &stage, "supervised fine-tuning (sft) and continued pre-training (pt) exist here")),
    }
}

/// `[method]`
fn method(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let kind = scope.text("finetuning_type")?;
    let full = match &kind {
        Some(kind) if kind.value == "full" => true,
        Some(kind) if kind.value != "lora" => return Err(no_such(scope, kind, "lora and full exist here")),
        _ => false,
    };
    kind.iter().for_each(|kind| ledger.carry(&kind.at, "method.kind"));
    let bits = scope.count("quantization_bit")?;
    let kept = bits.as_ref().map(|bits| bits.value).filter(|bits| !full && [4, 8].contains(bits));
    draft.put(
        "method.kind",
        word(if full {
            "full"
        } else if kept.is_some() {
            "qlora"
        } else {
            "lora"
        }),
    );
    if kept == Some(8) {
        draft.put("method.bits", super::draft::whole(8));
    }
    for bits in bits.iter() {
        match kept {
            Some(8) => ledger.carry(&bits.at, "method.bits"),
            Some(_) => ledger.carry(&bits.at, "method.kind"),
            None => ledger.note(
                &bits.at,
                What::NoCounterpart,
                "the frozen base was in so many bits; here in bf16 (\"lora\"), 8 or 4 bits (\"qlora\")",
            ),
        }
    }
    if !full {
        return lora(scope, draft, ledger);
    }
    let adapter = ["lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_rslora", "adapter_name_or_path"];
    for any in adapter.iter().filter_map(|key| scope.any(key)) {
        ledger.note(&any.here(), What::NotNeeded, "no adapter is asked for: all weights are trained");
    }
    Ok(())
}

fn lora(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let rank = scope.count("lora_rank")?.map_or(RANK, |rank| rank.value);
    common::carry_plain(scope, &LORA, draft, ledger)?;
    draft.put_default("method.rank", super::draft::whole(rank));
    draft.put_default("method.alpha", Value::Float(2.0 * rank as f64));
    match scope.texts("lora_target")? {
        Some(names) => targets(&names, draft, ledger),
        None => draft.put_default("method.targets", word("all-linear")),
    }
    let Some(adapters) = scope.texts("adapter_name_or_path")? else { return Ok(()) };
    match adapters.value.as_slice() {
        [] => ledger.note(&adapters.at, What::NotNeeded, "an empty list"),
        [one] => {
            draft.put("method.start_from", word(one.clone()));
            ledger.carry(&adapters.at, "method.start_from");
        }
        [.., last] => {
            draft.put_because(
                "method.start_from",
                word(last.clone()),
                "the last of several adapters; the tool merged the others first",
            );
            ledger.note(
                &adapters.at,
                What::NoCounterpart,
                "it merged all adapters but the last into the model; here one is continued: merge the others first",
            );
        }
    }
    Ok(())
}

fn packing(scope: &Scope, pretraining: bool, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let (packing, neat) = (scope.flag("packing")?, scope.flag("neat_packing")?);
    let neatly = neat.as_ref().is_some_and(|neat| neat.value);
    let packs = neatly || packing.as_ref().map_or(pretraining, |packing| packing.value);
    match packing.is_some() || neat.is_some() {
        true => draft.put("data.packing", Value::Boolean(packs)),
        false => draft.put_default("data.packing", Value::Boolean(packs)),
    }
    for packing in packing.iter() {
        match packing.value && !neatly && !pretraining {
            true => ledger.note(
                &packing.at,
                What::CarriedDifferently,
                "rows that share a packed row saw each other there; here they never do",
            ),
            false => ledger.carry(&packing.at, "data.packing"),
        }
    }
    neat.iter().for_each(|neat| ledger.carry(&neat.at, "data.packing"));
    group(scope, packs, draft, ledger)
}

/// Template, and which turns are trained.
fn turns(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    if let Some(template) = scope.text("template")? {
        common::template_name(&template.at, &template.value, draft, ledger);
    }
    if let Some(history) = scope.flag("mask_history")? {
        if history.value {
            draft.put("data.train_on", word("last"));
        }
        ledger.carry(&history.at, "data.train_on");
    }
    if let Some(prompt) = scope.flag("train_on_prompt")? {
        match prompt.value {
            true => ledger.note(
                &prompt.at,
                What::NoCounterpart,
                "it trained on the prompts too; here on answers only (format \"text\" trains on all of a row)",
            ),
            false => ledger.carry(&prompt.at, "data.train_on"),
        }
    }
    Ok(())
}

fn data(scope: &Scope, pretraining: bool, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let folder = scope.text("dataset_dir")?;
    let info = folder.as_ref().map_or("data/dataset_info.json".to_string(), |folder| {
        format!("{}/dataset_info.json", one_line(folder.value.trim_end_matches('/')))
    });
    folder.iter().for_each(|folder| {
        ledger.note(
            &folder.at,
            What::CarriedDifferently,
            format!("{info} says which file or hub a data set's name means; write that path"),
        );
    });
    let format = pretraining.then_some("text");
    let source = |name: &String| Source {
        path: placeholder(name, None),
        format,
        comment: Some(format!("{info} says which file `{}` is and how its columns are called", one_line(name))),
        ..Source::default()
    };
    let names = scope.texts("dataset")?.filter(|names| !names.value.is_empty());
    let Some(names) = names else {
        let why = "without rows there is nothing to train on";
        return Err(MigrateError::Missing { file: scope.file.to_string(), key: "dataset", why });
    };
    let why = format!(
        "names of {info}; the recipe has placeholders: write each one's file and, where its columns have other names, `columns`"
    );
    ledger.note(&names.at, What::CarriedDifferently, why.clone());
    names.value.iter().map(source).for_each(|source| draft.add(source));
    if let Some(rows) = scope.limit("max_samples")? {
        draft.sources_mut().iter_mut().for_each(|source| source.max_rows = Some(rows.value));
        ledger.carry(&rows.at, "data.sources.max_rows");
    }
    if let Some(names) = scope.texts("eval_dataset")? {
        draft.held_out = names.value.first().map(source).map(HeldOut::Source);
        let more = if names.value.len() > 1 { "; eval.source is one source: the first is taken" } else { "" };
        ledger.note(&names.at, What::CarriedDifferently, format!("{why}{more}"));
    }
    common::held_out_share(scope, "val_size", draft, ledger)
}
