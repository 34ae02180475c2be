//! Axolotl's data sets: files, shapes, columns, templates, held-out rows.
//!
//! In:    `datasets`, `pretraining_dataset`, `test_datasets` and what goes with them.
//! Out:   sources of the draft.
//! Never: a hub's data set as if it were a file: it becomes a placeholder with a note.

use super::axolotl::deduplicate;
use super::axolotl_files::files;
use super::axolotl_tables as tables;
use super::common::{held_out_share, template_name};
use super::draft::{Draft, HeldOut, Source, word};
use super::ledger::Ledger;
use super::scope::{Any, Scope};
use super::tree::Value;
use super::{MigrateError, What};

/// Columns of a data set by the key that names them.
pub(super) const COLUMNS: [(&str, &str); 7] = [
    ("field_messages", "messages"),
    ("field_tools", "tools"),
    ("field_system", "system"),
    ("field_instruction", "instruction"),
    ("field_input", "input"),
    ("field_output", "output"),
    ("field", "text"),
];

/// Names of roles that rows may use here without a mapping.
const ROLES: [&str; 9] = ["system", "user", "human", "assistant", "gpt", "model", "tool", "function", "developer"];

/// Fills `[data]` and `[eval]`.
pub(super) fn fill(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    template(scope, draft, ledger)?;
    if let Some(inputs) = scope.flag("train_on_inputs")? {
        match inputs.value {
            true => ledger.note(
                &inputs.at,
                What::NoCounterpart,
                "it trained on the prompts too; here on answers only (format \"text\" trains on all of a row)",
            ),
            false => ledger.carry(&inputs.at, "data.train_on"),
        }
    }
    let mut any = false;
    for key in ["datasets", "pretraining_dataset"] {
        let Some(sets) = list(scope, key)? else { continue };
        for set in &sets.1 {
            for source in sources(set, key, draft, ledger)? {
                draft.add(source);
                any = true;
            }
        }
        ledger.carry(&sets.0.here(), "data.sources");
    }
    if !any {
        let why = "without rows there is nothing to train on";
        return Err(MigrateError::Missing { file: scope.file.to_string(), key: "datasets", why });
    }
    if let Some(clean) = deduplicate(scope, ledger)? {
        draft.put("data.clean", clean);
    }
    test_sets(scope, draft, ledger)?;
    held_out_share(scope, "val_set_size", draft, ledger)
}

/// A list of mappings, or one mapping, or a path alone as `pretraining_dataset` allows.
fn list<'a>(scope: &Scope<'a>, key: &str) -> Result<Option<(Any<'a>, Vec<Scope<'a>>)>, MigrateError> {
    let Some(any) = scope.any(key) else { return Ok(None) };
    let sets = match any.value {
        Value::Map(_) => scope.map(key).into_iter().collect(),
        _ => scope.maps(key)?.map(|found| found.value).unwrap_or_default(),
    };
    Ok(Some((any, sets)))
}

fn template(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let (name, jinja) = (scope.text("chat_template")?, scope.text("chat_template_jinja")?);
    match (&name, &jinja) {
        (name, Some(jinja)) if name.as_ref().is_none_or(|name| name.value == "jinja") => {
            draft.put("data.chat_template", word(jinja.value.clone()));
            ledger.carry(&jinja.at, "data.chat_template");
            name.iter().for_each(|name| ledger.carry(&name.at, "data.chat_template"));
        }
        (Some(name), jinja) => {
            template_name(&name.at, &name.value, draft, ledger);
            let why = "chat_template names another template";
            jinja.iter().for_each(|jinja| ledger.note(&jinja.at, What::NotNeeded, why));
        }
        _ => {}
    }
    Ok(())
}

/// One data set: as many sources as it has files.
fn sources(set: &Scope, list: &str, draft: &mut Draft, ledger: &mut Ledger) -> Result<Vec<Source>, MigrateError> {
    let mut source = Source::default();
    shape(set, list, &mut source, ledger)?;
    columns(set, &mut source, ledger)?;
    messages(set, &mut source, ledger)?;
    if set.text("chat_template")?.is_some() || set.text("chat_template_jinja")?.is_some() {
        set_template(set, draft, ledger)?;
    }
    let sources = files(set, source, ledger)?;
    ledger.rest(set, &[&tables::DATASET]);
    Ok(sources)
}

/// The first template of a data set is the recipe's if the file has none of its own.
fn set_template(set: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    if !draft.has("data.chat_template") {
        return template(set, draft, ledger);
    }
    let (name, jinja) = (set.text("chat_template")?, set.text("chat_template_jinja")?);
    let written = draft.get("data.chat_template").and_then(|value| value.as_str()).map(str::to_string);
    for found in [name, jinja].into_iter().flatten() {
        let same = match found.value.as_str() {
            "tokenizer_default" | "tokenizer_default_fallback_chatml" => Some("auto"),
            text => Some(text),
        };
        match same == written.as_deref() {
            true => ledger.carry(&found.at, "data.chat_template"),
            false => ledger.note(
                &found.at,
                What::NoCounterpart,
                "a template for one data set; here all rows have one, data.chat_template",
            ),
        }
    }
    Ok(())
}

/// `format` from `type`.
fn shape(set: &Scope, list: &str, source: &mut Source, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let Some(any) = set.any("type") else {
        if list == "pretraining_dataset" {
            source.format = Some("text");
        }
        return Ok(());
    };
    if let Some(own) = set.map("type") {
        source.format = Some("instruction");
        columns(&own, source, ledger)?;
        ledger.rest(&own, &[&tables::DATASET]);
        ledger.carry(&any.here(), "data.sources.format");
        return Ok(());
    }
    let text = any.value.to_string();
    let stem = text.split([':', '.']).next().unwrap_or_default();
    let (format, why) = match (stem, text.as_str()) {
        (_, "alpaca_chat.load_qa") => (Some("question-answer"), None),
        ("alpaca", _) => (
            Some("instruction"),
            Some(
                "the same rows; the tool's own prompt (\"Below is an instruction ...\") is replaced by the model's chat template",
            ),
        ),
        ("chat_template", _) => (Some("messages"), None),
        ("sharegpt", _) => (
            Some("conversations"),
            Some("the same rows; the tool's own prompt is replaced by the model's chat template"),
        ),
        ("completion" | "pretrain", _) => (Some("text"), None),
        ("input_output", _) => (
            Some("segments"),
            Some("the same segments, but here each says `train`, not `label`: rename it in the rows"),
        ),
        _ => (
            None,
            Some(
                "a shape of the tool's own; the recipe leaves `format` out, and the first row decides: look at it with `tune data inspect`",
            ),
        ),
    };
    source.format = format;
    match why {
        None => ledger.carry(&any.here(), "data.sources.format"),
        Some(why) => ledger.note(&any.here(), What::CarriedDifferently, why),
    }
    Ok(())
}

fn columns(set: &Scope, source: &mut Source, ledger: &mut Ledger) -> Result<(), MigrateError> {
    for (key, field) in COLUMNS.iter().chain(&[("text_column", "text")]) {
        let Some(column) = set.text(key)? else { continue };
        if column.value != *field {
            source.columns.insert(field, column.value);
        }
        ledger.carry(&column.at, "data.sources.columns");
    }
    Ok(())
}

/// Names inside messages, and which turns are trained.
fn messages(set: &Scope, source: &mut Source, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let mut names = Vec::new();
    if let Some(mapping) = set.map("message_property_mappings") {
        let at = set.any("message_property_mappings").map(|any| any.here());
        names.extend(mapping.all().map(|any| (any.name.clone(), any.value.to_string())));
        at.iter().for_each(|at| property(at, &names, source, ledger));
    }
    for (key, name) in [("message_field_role", "role"), ("message_field_content", "content")] {
        if let Some(found) = set.text(key)? {
            property(&found.at, &[(name.to_string(), found.value)], source, ledger);
        }
    }
    if let Some(field) = set.text("message_field_training")? {
        match field.value == "train" {
            true => ledger.carry(&field.at, "data.train_on"),
            false => {
                ledger.note(&field.at, What::NoCounterpart, "messages say `train` here; rename the field in the rows")
            }
        }
    }
    turns(set, ledger)
}

/// `from` and `value` are ShareGPT's names, `role` and `content` OpenAI's; others must be renamed in the rows.
fn property(at: &super::scope::At, names: &[(String, String)], source: &mut Source, ledger: &mut Ledger) {
    let of = |pairs: [(&str, &str); 2]| {
        names.iter().all(|(name, column)| pairs.iter().any(|(known, there)| name == known && column == there))
    };
    if of([("role", "role"), ("content", "content")]) {
        ledger.carry(at, "data.sources.format");
    } else if of([("role", "from"), ("content", "value")]) {
        source.format = Some("conversations");
        // The list's own name there; the shape's default is `conversations`.
        match source.columns.get("messages").map(String::as_str) {
            Some("conversations") => drop(source.columns.remove("messages")),
            Some(_) => {}
            None => drop(source.columns.insert("messages", "messages".to_string())),
        }
        ledger.carry(at, "data.sources.format");
    } else {
        ledger.note(
            at,
            What::NoCounterpart,
            "messages have `role` and `content`, or `from` and `value`; rename the fields in the rows",
        );
    }
}

fn turns(set: &Scope, ledger: &mut Ledger) -> Result<(), MigrateError> {
    if let Some(any) = set.any("roles") {
        let named = match any.value {
            Value::Map(targets) => {
                targets.iter().all(|target| known_roles(&target.key) && known_sources(&target.value))
            }
            _ => false,
        };
        match named {
            true => ledger.note(&any.here(), What::NotNeeded, "these names of roles are known"),
            false => ledger.note(
                &any.here(),
                What::NoCounterpart,
                "roles are system, user (human), assistant (gpt, model), tool; rename them in the rows",
            ),
        }
    }
    if let Some(any) = set.any("roles_to_train") {
        let roles = set.texts("roles_to_train")?.map(|found| found.value).unwrap_or_default();
        let answers = |role: &String| matches!(role.as_str(), "assistant" | "gpt" | "model");
        match !roles.is_empty() && roles.iter().all(answers) {
            true => ledger.carry(&any.here(), "data.train_on"),
            false => ledger.note(
                &any.here(),
                What::NoCounterpart,
                "answers are trained on; a message with \"train\": true or false wins over that",
            ),
        }
    }
    if let Some(eos) = set.text("train_on_eos")? {
        match eos.value == "turn" {
            true => ledger.carry(&eos.at, "data.train_on"),
            false => ledger.note(
                &eos.at,
                What::NoCounterpart,
                "the end of every trained turn is trained here, and of no other",
            ),
        }
    }
    Ok(())
}

fn known_roles(name: &str) -> bool {
    ROLES.contains(&name)
}

fn known_sources(value: &Value) -> bool {
    match value {
        Value::Text(name) => known_roles(name),
        Value::List(names) => names.iter().all(|name| matches!(name, Value::Text(name) if known_roles(name))),
        _ => false,
    }
}

/// `test_datasets`: the first becomes `eval.source`.
fn test_sets(scope: &Scope, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let Some((at, sets)) = list(scope, "test_datasets")? else { return Ok(()) };
    let mut held_out = Vec::new();
    for set in &sets {
        held_out.extend(sources(set, "test_datasets", draft, ledger)?);
    }
    match held_out.len() {
        0 | 1 => ledger.carry(&at.here(), "eval.source"),
        _ => ledger.note(
            &at.here(),
            What::CarriedDifferently,
            "eval.source is one source: the first file is taken; a folder or a glob takes several",
        ),
    }
    draft.held_out = held_out.into_iter().next().map(HeldOut::Source);
    Ok(())
}
