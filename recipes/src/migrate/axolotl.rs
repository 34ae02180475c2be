//! Axolotl's file: model, method, lengths, batches, schedule.
//!
//! In:    its mapping.
//! Out:   the draft and the ledger, filled.
//! Never: a default of this program where Axolotl has another.

use toml::Value;

use super::axolotl_tables as tables;
use super::common::{self, Batches, Plain, Read, plain};
use super::common_tables::COMMON;
use super::draft::{Draft, word};
use super::ledger::Ledger;
use super::optimizer::{optimizer, schedule, warmup};
use super::scope::{Found, Scope};
use super::targets::targets;
use super::{MigrateError, What, axolotl_data};

/// Keys of LoRA, carried as they stand.
pub(super) const LORA: [Plain; 4] = [
    plain("lora_r", "method.rank", Read::Count),
    plain("lora_alpha", "method.alpha", Read::Number),
    plain("lora_dropout", "method.dropout", Read::Number),
    plain("peft_use_rslora", "method.rank_stabilized", Read::Flag),
];

/// Axolotl's share of steps for the warmup, if none is written: 3 %, at most 100 steps there.
const WARMUP_SHARE: f64 = 0.03;

/// Fills the draft.
pub(super) fn fill(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    refuse_preferences(scope)?;
    common::model(scope, ("base_model", "revision_of_model"), draft, ledger)?;
    let formats = [("float32", "f32"), ("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16"), ("float16", "fp16")];
    common::precision(scope, &formats, draft, ledger)?;
    method(scope, draft, ledger)?;
    lengths(scope, draft, ledger)?;
    axolotl_data::fill(scope, draft, ledger)?;
    common::duration(scope, "num_epochs", 1.0, draft, ledger)?;
    optimizer(scope, "optimizer", draft, ledger)?;
    common::carry_plain(scope, &common::PLAIN, draft, ledger)?;
    if !draft.has("optimizer.learning_rate") {
        let (key, why) = ("learning_rate", "Axolotl has no default for it, and neither has a recipe");
        return Err(MigrateError::Missing { file: scope.file.to_string(), key, why });
    }
    let used = schedule(scope, "lr_scheduler", "cosine", draft, ledger)?;
    warmup(scope, used, Some(WARMUP_SHARE), draft, ledger)?;
    common::intervals(scope, draft, ledger)?;
    special_tokens(scope, ledger);
    ledger.rest(scope, &[&tables::FILE, &COMMON]);
    Ok(())
}

fn refuse_preferences(scope: &Scope) -> Result<(), MigrateError> {
    match scope.any("rl") {
        Some(any) => Err(MigrateError::NoSuchMethod {
            place: format!("{}:{}", scope.file, any.line),
            key: any.key,
            value: super::tree::shortened(&any.value.to_string(), 60),
            why: "training on preferences or rewards does not exist here; supervised fine-tuning and continued pre-training do",
        }),
        None => Ok(()),
    }
}

/// `[method]`
fn method(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let (four, eight) = (scope.flag("load_in_4bit")?, scope.flag("load_in_8bit")?);
    let is_on = |flag: &Option<Found<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
    let (in_four, in_eight) = (is_on(&four), is_on(&eight) && !is_on(&four));
    let kind = match scope.text("adapter")? {
        Some(adapter) => {
            let kind = match (adapter.value.as_str(), in_four || in_eight) {
                ("qlora", _) | ("lora", true) => "qlora",
                ("lora", false) => "lora",
                _ => {
                    return Err(MigrateError::NoSuchMethod {
                        place: format!("{}:{}", scope.file, adapter.at.line),
                        key: adapter.at.key,
                        value: super::tree::shortened(&adapter.value, 60),
                        why: "lora and qlora exist here, and all weights without an adapter",
                    });
                }
            };
            ledger.carry(&adapter.at, "method.kind");
            kind
        }
        None => "full",
    };
    draft.put("method.kind", word(kind));
    if kind == "qlora" && in_eight {
        draft.put("method.bits", super::draft::whole(8));
    }
    precision_of_base(kind, [four, eight], ledger);
    if kind != "full" {
        return lora(scope, draft, ledger);
    }
    let adapter = [
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_linear",
        "lora_target_modules",
        "peft_use_rslora",
        "lora_model_dir",
    ];
    for any in adapter.iter().filter_map(|key| scope.any(key)) {
        ledger.note(&any.here(), What::NotNeeded, "no adapter is asked for: all weights are trained");
    }
    Ok(())
}

fn precision_of_base(kind: &str, bits: [Option<Found<bool>>; 2], ledger: &mut Ledger) {
    let [four, eight] = bits;
    for four in four.iter() {
        match (four.value, kind) {
            (true, "full") => {
                ledger.note(&four.at, What::NoCounterpart, "all weights are trained, none is kept in 4 bits")
            }
            (true, _) => ledger.carry(&four.at, "method.kind"),
            (false, "qlora") => ledger.note(&four.at, What::NotNeeded, "the adapter is qlora, whose base is in 4 bits"),
            (false, _) => ledger.note(&four.at, What::NotNeeded, "switched off there"),
        }
    }
    let in_four = four.as_ref().is_some_and(|four| four.value);
    for eight in eight.iter() {
        match (eight.value, kind) {
            (true, "full") => {
                ledger.note(&eight.at, What::NoCounterpart, "all weights are trained, none is kept in 8 bits")
            }
            (true, _) if in_four => ledger.note(&eight.at, What::NotNeeded, "the base is kept in 4 bits"),
            (true, _) => ledger.carry(&eight.at, "method.bits"),
            (false, _) => ledger.note(&eight.at, What::NotNeeded, "switched off there"),
        }
    }
}

fn lora(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    common::carry_plain(scope, &LORA, draft, ledger)?;
    for (key, dotted) in [("lora_r", "method.rank"), ("lora_alpha", "method.alpha")] {
        if !draft.has(dotted) {
            let why = "adapters need a rank and a scale";
            return Err(MigrateError::Missing { file: scope.file.to_string(), key, why });
        }
    }
    if let Some(modules) = scope.texts("lora_target_modules")? {
        targets(&modules, draft, ledger);
    }
    if let Some(linear) = scope.flag("lora_target_linear")? {
        if linear.value {
            draft.put("method.targets", word("all-linear"));
        }
        ledger.carry(&linear.at, "method.targets");
    }
    if !draft.has("method.targets") {
        let names = Value::Array(vec![word("q_proj"), word("v_proj")]);
        draft.put_because("method.targets", names, "PEFT's default for most models; the file does not say it");
    }
    if let Some(folder) = scope.text("lora_model_dir")? {
        draft.put("method.start_from", word(folder.value));
        ledger.carry(&folder.at, "method.start_from");
    }
    Ok(())
}

/// Length, packing, batches.
fn lengths(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let (micro, mut accumulation) = (scope.count("micro_batch_size")?, scope.count("gradient_accumulation_steps")?);
    if let Some(total) = scope.count("batch_size")? {
        let rows = micro.as_ref().map_or(1, |micro| micro.value).max(1);
        match accumulation {
            Some(_) => ledger.note(&total.at, What::NotNeeded, "gradient_accumulation_steps says it"),
            None => accumulation = Some(Found { at: total.at, value: total.value / rows }),
        }
    }
    let length = scope.count("sequence_len")?;
    let batches = Batches { micro, micro_default: 1, accumulation, length, length_default: 512 };
    common::batches(scope, batches, draft, ledger)?;
    let packing = scope.flag("sample_packing")?;
    let packs = packing.as_ref().is_some_and(|packing| packing.value);
    match packing {
        Some(packing) => {
            draft.put("data.packing", Value::Boolean(packs));
            ledger.carry(&packing.at, "data.packing");
        }
        None => draft.put_default("data.packing", Value::Boolean(false)),
    }
    group(scope, packs, draft, ledger)?;
    match scope.text("excess_length_strategy")? {
        Some(found) => {
            let to = match found.value.as_str() {
                "drop" => "drop",
                "truncate" => "truncate",
                "raise" => "error",
                _ => return Err(wrong_word(scope, "excess_length_strategy", "drop, truncate or raise")),
            };
            draft.put("data.too_long", word(to));
            ledger.carry(&found.at, "data.too_long");
        }
        None => draft.put_default("data.too_long", word("drop")),
    }
    Ok(())
}

fn wrong_word(scope: &Scope, key: &str, expected: &str) -> MigrateError {
    match scope.any(key) {
        Some(any) => scope.wrong(&any, expected),
        None => MigrateError::Neither { file: scope.file.to_string() },
    }
}

/// `data.group_by_length`, which packed rows have no use for.
pub(super) fn group(scope: &Scope, packs: bool, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let Some(group) = scope.flag("group_by_length")? else { return Ok(()) };
    match group.value && packs {
        true => ledger.note(&group.at, What::NotNeeded, "packed rows all have one length"),
        false => {
            draft.put("data.group_by_length", Value::Boolean(group.value));
            ledger.carry(&group.at, "data.group_by_length");
        }
    }
    Ok(())
}

/// A padding token alone changes nothing here.
fn special_tokens(scope: &Scope, ledger: &mut Ledger) {
    let (Some(any), Some(tokens)) = (scope.any("special_tokens"), scope.map("special_tokens")) else { return };
    if tokens.all().all(|token| token.name == "pad_token") {
        ledger.note(&any.here(), What::NotNeeded, "no row is padded");
    }
}

/// `data.clean`: exact duplicates.
pub(super) fn deduplicate(scope: &Scope, ledger: &mut Ledger) -> Result<Option<Value>, MigrateError> {
    let Some(found) = scope.flag("dataset_exact_deduplication")? else { return Ok(None) };
    ledger.carry(&found.at, "data.clean");
    let table = toml::Table::from_iter([("deduplicate".to_string(), word("exact"))]);
    Ok(found.value.then_some(Value::Table(table)))
}
