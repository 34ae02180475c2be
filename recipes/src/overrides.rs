//! `--set a.b=VALUE`: one value put into a recipe's table.
//!
//! In:    the argument's text and the table.
//! Out:   the changed table.
//! Never: checks whether the key is known; deserialising the table does.

use toml::{Table, Value};

use crate::RecipeError;
use crate::recipe::{method, optimizer};

/// Keys of which a recipe has one or the other: setting the first removes the second.
const ALTERNATIVES: [(&str, &str); 2] = [("train.steps", "train.epochs"), ("train.epochs", "train.steps")];

/// Puts one `key=value` into `table`.
pub(crate) fn apply(table: &mut Table, argument: &str) -> Result<(), RecipeError> {
    let refuse = |message: &str| RecipeError::Override { argument: argument.to_string(), message: message.to_string() };
    let (key, text) = argument.split_once('=').ok_or_else(|| refuse("expected KEY=VALUE, such as train.steps=50"))?;
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(refuse("the key is empty or has an empty part"));
    }
    let value = value_of(text.trim()).ok_or_else(|| refuse("the value is not valid TOML"))?;
    let foreign = foreign_keys(key, &value);
    set(table, key, value).map_err(|message| refuse(&message))?;
    for (written, other) in ALTERNATIVES {
        if key == written {
            remove(table, other);
        }
    }
    for (section, other) in foreign {
        remove(table, &format!("{section}.{other}"));
    }
    Ok(())
}

/// Section and name of the keys that a new `method.kind` or `optimizer.kind` does not know: they go with the old kind.
fn foreign_keys(key: &str, value: &Value) -> Vec<(&'static str, &'static str)> {
    let word = value.as_str().unwrap_or_default();
    let (section, keys) = match key {
        "method.kind" => ("method", method::keys_foreign_to(word)),
        "optimizer.kind" => ("optimizer", optimizer::keys_foreign_to(word)),
        _ => return Vec::new(),
    };
    keys.iter().map(|key| (section, *key)).collect()
}

/// TOML if it is TOML; else the text itself, unless it starts like a quoted text, a list or a table.
fn value_of(text: &str) -> Option<Value> {
    if let Ok(mut table) = format!("value = {text}").parse::<Table>()
        && table.len() == 1
    {
        return table.remove("value");
    }
    let structured = text.starts_with(['"', '\'', '[', '{']) || text.contains('\n') || text.is_empty();
    (!structured).then(|| Value::String(text.to_string()))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_string(), value);
            Ok(())
        }
        Some((section, rest)) => match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => set(inner, rest, value),
            _ => Err(format!("`{section}` is not a section")),
        },
    }
}

fn remove(table: &mut Table, key: &str) {
    if let Some((section, leaf)) = key.split_once('.')
        && let Some(Value::Table(inner)) = table.get_mut(section)
    {
        inner.remove(leaf);
    }
}
