//! What differs between two descriptions of a run, leaf by leaf.
//!
//! In:    two JSON values.
//! Out:   dotted keys with both values.
//! Never: stops at the first.

use serde_json::Value;

/// Differences named in a text; a run of another recipe may have dozens.
const NAMED_MAX: usize = 12;
/// Characters of a value in a text.
const VALUE_CHARACTERS_MAX: usize = 80;

/// A leaf that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its place, such as `optimizer.learning_rate` or `data.sources.0.path`.
    pub key: String,
    /// Its value before, as JSON; `absent` where there was none.
    pub was: String,
    /// Its value now.
    pub is: String,
}

/// Every leaf that differs, in the order of `was`, then those that only `is` has.
pub fn differences(was: &Value, is: &Value) -> Vec<Difference> {
    let (before, now) = (leaves(was), leaves(is));
    let value = |leaves: &[(String, String)], key: &str| {
        leaves.iter().find(|(k, _)| k == key).map_or("absent".to_string(), |(_, value)| value.clone())
    };
    let mut found: Vec<Difference> = Vec::new();
    for (key, _) in before.iter().chain(&now) {
        let (was, is) = (value(&before, key), value(&now, key));
        if was != is && found.iter().all(|known| known.key != *key) {
            found.push(Difference { key: key.clone(), was, is });
        }
    }
    found
}

/// `a was 1 and is 2; b was absent and is 3`.
pub fn text(differences: &[Difference]) -> String {
    let named = differences.iter().take(NAMED_MAX);
    let mut parts: Vec<String> =
        named.map(|one| format!("{} was {} and is {}", one.key, short(&one.was), short(&one.is))).collect();
    if differences.len() > NAMED_MAX {
        parts.push(format!("and {} more", differences.len() - NAMED_MAX));
    }
    parts.join("; ")
}

fn short(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_string(),
    }
}

/// Dotted keys and values as JSON; an empty list or table is a leaf.
fn leaves(value: &Value) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(key, value)| walk(&format!("{prefix}{key}."), value, out));
            }
            Value::Array(list) if !list.is_empty() => {
                list.iter().enumerate().for_each(|(at, value)| walk(&format!("{prefix}{at}."), value, out));
            }
            leaf => out.push((prefix.trim_end_matches('.').to_string(), leaf.to_string())),
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_differing_leaf_is_named_with_both_values() {
        let was = json!({"train": {"seed": 1, "steps": 3}, "targets": ["q", "v"], "gone": true, "same": [1, {}]});
        let is = json!({"train": {"seed": 2, "steps": 3}, "targets": ["q"], "same": [1, {}], "new": null});
        let found = differences(&was, &is);
        assert_eq!(
            text(&found),
            "train.seed was 1 and is 2; targets.1 was \"v\" and is absent; gone was true and is absent; \
             new was absent and is null"
        );
        assert!(differences(&was, &was).is_empty());
    }

    #[test]
    fn a_long_text_is_cut_and_many_differences_are_counted() {
        let was = Value::Array((0..20).map(Value::from).collect());
        let is = Value::Array((0..20).map(|_| Value::from("é".repeat(100))).collect());
        let text = text(&differences(&was, &is));
        assert!(text.ends_with("and 8 more") && text.contains("..."), "{text}");
    }
}
