//! What both tools say in the same way: keys of transformers' `TrainingArguments`, places of models, batches, warmup.
//!
//! In:    the file's scope.
//! Out:   lines of the draft, entries of the ledger.
//! Never: a key that only one of the tools has.

use toml::Value;

use super::draft::{Draft, HeldOut, whole, word};
use super::ledger::Ledger;
use super::scope::{At, Found, Scope};
use super::tree::Value as Yaml;
use super::{MigrateError, What};

/// How a value becomes the recipe's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Read {
    /// Any number.
    Number,
    /// A count.
    Count,
    /// A flag.
    Flag,
}

/// A key that is carried as it stands.
#[derive(Debug)]
pub(super) struct Plain {
    /// There.
    pub from: &'static str,
    /// Here.
    pub to: &'static str,
    pub read: Read,
}

/// A row of a table of plain keys.
pub(super) const fn plain(from: &'static str, to: &'static str, read: Read) -> Plain {
    Plain { from, to, read }
}

/// Keys that both tools have, carried as they stand.
pub(super) const PLAIN: [Plain; 3] = [
    plain("learning_rate", "optimizer.learning_rate", Read::Number),
    plain("weight_decay", "optimizer.weight_decay", Read::Number),
    plain("seed", "train.seed", Read::Count),
];

/// Carries a table of plain keys.
pub(super) fn carry_plain(
    scope: &Scope,
    table: &[Plain],
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    for Plain { from, to, read } in table {
        let found = match read {
            Read::Number => scope.number(from)?.map(|found| (found.at, Value::Float(found.value))),
            Read::Count => scope.count(from)?.map(|found| (found.at, whole(found.value))),
            Read::Flag => scope.flag(from)?.map(|found| (found.at, Value::Boolean(found.value))),
        };
        if let Some((at, value)) = found {
            draft.put(to, value);
            ledger.carry(&at, to);
        }
    }
    Ok(())
}

/// A hub's `owner/name` or a local path, as `model.source` spells it.
pub(super) fn model_place(text: &str, revision: Option<&str>) -> String {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    match text.split_once('/') {
        Some((owner, name)) if part(owner) && part(name) => match revision.filter(|revision| *revision != "main") {
            Some(revision) => format!("hf:{text}@{revision}"),
            None => format!("hf:{text}"),
        },
        _ => text.to_string(),
    }
}

/// `name` and `[model] source`.
pub(super) fn model(
    scope: &Scope,
    keys: (&'static str, &str),
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    let (model_key, revision_key) = keys;
    let Some(model) = scope.text(model_key)?.filter(|model| !model.value.trim().is_empty()) else {
        return Err(MigrateError::Missing { file: scope.file.to_string(), key: model_key, why: "the model to train" });
    };
    let revision = scope.text(revision_key)?;
    let place = model_place(&model.value, revision.as_ref().map(|revision| revision.value.as_str()));
    if let Some(revision) = revision {
        match place.starts_with("hf:") {
            true => ledger.carry(&revision.at, "model.source"),
            false => ledger.note(&revision.at, What::NotNeeded, "the model is a local path"),
        }
    }
    draft.put_because("name", word(name_of(&model.value)), "names the run's directory, runs/NAME");
    draft.put("model.source", word(place));
    ledger.carry(&model.at, "model.source");
    Ok(())
}

/// A run's name from a model's.
fn name_of(model: &str) -> String {
    let leaf = model.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' };
    let name: String = leaf.chars().map(plain).take(80).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "migrated".to_string() } else { format!("{name}-tuned") }
}

/// `model.precision` from the flags of mixed precision, each with the format that it asks for: `"fp16"` has no counterpart.
pub(super) fn precision(
    scope: &Scope,
    keys: &[(&str, &'static str)],
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    for (key, precision) in keys {
        let Some(any) = scope.any(key) else { continue };
        let automatic = matches!(any.value, Yaml::Text(text) if text == "auto");
        let full = matches!(any.value, Yaml::Text(text) if text == "full");
        if !automatic && !full && !scope.is_on(key)? {
            ledger.note(&any.here(), What::NotNeeded, "switched off there");
            continue;
        }
        if *precision == "fp16" {
            let why = "no fp16 here; bf16 needs no loss scaling";
            draft.put_because("model.precision", word("bf16"), format!("fp16 there; {why}"));
            ledger.note(&any.here(), What::CarriedDifferently, format!("model.precision = \"bf16\": {why}"));
            continue;
        }
        if !draft.has("model.precision") {
            draft.put("model.precision", word(if automatic { "auto" } else { precision }));
        }
        ledger.carry(&any.here(), "model.precision");
    }
    Ok(())
}

/// Rows of a step and their length.
pub(super) struct Batches {
    pub micro: Option<Found<u64>>,
    pub micro_default: u64,
    pub accumulation: Option<Found<u64>>,
    pub length: Option<Found<u64>>,
    pub length_default: u64,
}

/// `data.sequence_length`, `train.tokens_per_step`, `train.micro_batch`.
pub(super) fn batches(
    scope: &Scope,
    batches: Batches,
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    let of = |found: &Option<Found<u64>>, default| found.as_ref().map_or(default, |found| found.value);
    let (micro, steps) = (of(&batches.micro, batches.micro_default), of(&batches.accumulation, 1));
    let length = of(&batches.length, batches.length_default);
    let product = micro.checked_mul(steps).and_then(|rows| rows.checked_mul(length)).filter(|tokens| *tokens > 0);
    let Some(tokens) = product else {
        let line =
            [&batches.micro, &batches.accumulation, &batches.length].into_iter().flatten().map(|found| found.at.line);
        let place = line.max().map_or(scope.file.to_string(), |line| format!("{}:{line}", scope.file));
        let message =
            format!("{micro} rows x {steps} micro-batches x {length} tokens make no step; expected 1 to 2^32 tokens");
        return Err(MigrateError::Refused { place, message });
    };
    match batches.length {
        Some(found) => {
            draft.put("data.sequence_length", whole(length));
            ledger.carry(&found.at, "data.sequence_length");
        }
        None => draft.put_default("data.sequence_length", whole(length)),
    }
    let sum = format!(
        "{micro} rows x {steps} micro-batches x {length} tokens; times the number of cards if several trained together"
    );
    draft.put_because("train.tokens_per_step", whole(tokens), sum);
    draft.put("train.micro_batch", whole(micro));
    batches.micro.iter().for_each(|found| ledger.carry(&found.at, "train.micro_batch"));
    batches.accumulation.iter().for_each(|found| ledger.carry(&found.at, "train.tokens_per_step"));
    Ok(())
}

/// `train.steps` or `train.epochs`.
pub(super) fn duration(
    scope: &Scope,
    epochs_key: &str,
    epochs_default: f64,
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    let (steps, epochs) = (scope.limit("max_steps")?, scope.number(epochs_key)?);
    if let Some(any) = scope.any("max_steps").filter(|_| steps.is_none()) {
        ledger.note(&any.here(), What::NotNeeded, "no limit there");
    }
    match (steps, epochs) {
        (Some(steps), epochs) => {
            draft.put("train.steps", whole(steps.value));
            ledger.carry(&steps.at, "train.steps");
            let why = "max_steps wins there and here";
            epochs.iter().for_each(|epochs| ledger.note(&epochs.at, What::NotNeeded, why));
        }
        (None, Some(epochs)) => {
            draft.put("train.epochs", Value::Float(epochs.value));
            ledger.carry(&epochs.at, "train.epochs");
        }
        (None, None) => draft.put_default("train.epochs", Value::Float(epochs_default)),
    }
    Ok(())
}

/// `[checkpoint]` and `eval.every_steps`.
pub(super) fn intervals(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    for (key, to) in [("save_steps", "checkpoint.every_steps"), ("eval_steps", "eval.every_steps")] {
        let Some(found) = scope.number(key)? else { continue };
        if found.value > 0.0 && found.value < 1.0 {
            ledger.note(&found.at, What::CarriedDifferently, format!("a share of the run there; write {to} in steps"));
            continue;
        }
        let Some(steps) = scope.limit(key)? else {
            ledger.note(&found.at, What::NotNeeded, "switched off there");
            continue;
        };
        match (to, draft.held_out.is_some()) {
            ("eval.every_steps", true) => draft.eval_every_steps = Some(steps.value),
            ("eval.every_steps", false) => {
                ledger.note(&steps.at, What::NotNeeded, "no rows are held out");
                continue;
            }
            _ => draft.put(to, whole(steps.value)),
        }
        ledger.carry(&steps.at, to);
    }
    if let Some(kept) = scope.limit("save_total_limit")? {
        draft.put("checkpoint.keep_last", whole(kept.value));
        ledger.carry(&kept.at, "checkpoint.keep_last");
    }
    Ok(())
}

/// `eval.share`; a number of rows has no counterpart.
pub(super) fn held_out_share(
    scope: &Scope,
    key: &str,
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    let Some(found) = scope.number(key)? else { return Ok(()) };
    if found.value <= 0.0 {
        ledger.note(&found.at, What::NotNeeded, "no rows are held out");
    } else if draft.held_out.is_some() {
        ledger.note(&found.at, What::NoCounterpart, "it held out training rows beside the data sets for evaluation; here one of the two: eval.source is written");
    } else if found.value < 1.0 {
        draft.held_out = Some(HeldOut::Share(found.value));
        ledger.carry(&found.at, "eval.share");
    } else {
        ledger.note(
            &found.at,
            What::NoCounterpart,
            "it held out so many training rows; here a share of them: write eval.share = 0.02 for two of a hundred",
        );
    }
    Ok(())
}

/// `data.chat_template` from a name there.
pub(super) fn template_name(at: &At, name: &str, draft: &mut Draft, ledger: &mut Ledger) {
    match name {
        "tokenizer_default" | "tokenizer_default_fallback_chatml" => draft.put("data.chat_template", word("model")),
        "chatml" => draft.put("data.chat_template", word("chatml")),
        other => {
            let why = format!(
                "the template `{other}` is part of the tool; here the model's own (data.chat_template = \"model\"): compare with `tune data inspect`, or name a .jinja file"
            );
            draft.put_because(
                "data.chat_template",
                word("auto"),
                format!("the model's own instead of the tool's `{other}`"),
            );
            ledger.note(at, What::CarriedDifferently, why);
            return;
        }
    }
    ledger.carry(at, "data.chat_template");
}
