//! `method.targets` from the names of layers.
//!
//! In:    names as PEFT's `target_modules` takes them.
//! Out:   `"all-linear"` or a list of the seven leaf names.
//! Never: a name that no block here has.

use toml::Value;

use super::What;
use super::draft::{Draft, word};
use super::ledger::Ledger;
use super::scope::Found;

/// Linear layers of a block.
const NAMES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Writes the targets; what is no layer of a block is noted.
pub(super) fn targets(found: &Found<Vec<String>>, draft: &mut Draft, ledger: &mut Ledger) {
    if found.value.iter().any(|name| matches!(name.as_str(), "all" | "all-linear" | "all_linear")) {
        draft.put("method.targets", word("all-linear"));
        ledger.carry(&found.at, "method.targets");
        return;
    }
    let leaf = |name: &String| name.rsplit('.').next().unwrap_or_default().to_string();
    let (known, other): (Vec<_>, Vec<_>) = found.value.iter().partition(|name| NAMES.contains(&leaf(name).as_str()));
    let mut leaves: Vec<String> = Vec::new();
    known.into_iter().map(leaf).for_each(|name| {
        if !leaves.contains(&name) {
            leaves.push(name)
        }
    });
    match leaves.is_empty() {
        true => draft.put_because(
            "method.targets",
            word("all-linear"),
            "none of the names there is a linear layer of a block here",
        ),
        false => draft.put("method.targets", Value::Array(leaves.into_iter().map(word).collect())),
    }
    match other.is_empty() {
        true => ledger.carry(&found.at, "method.targets"),
        false => {
            let other = other.iter().map(|name| super::tree::one_line(name)).collect::<Vec<_>>().join(", ");
            let why = format!(
                "no adapter here for {}; layers of a block are {}",
                super::tree::shortened(&other, 200),
                NAMES.join(" ")
            );
            ledger.note(&found.at, What::NoCounterpart, why);
        }
    }
}
