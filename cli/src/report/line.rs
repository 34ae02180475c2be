//! One line of `metrics.jsonl`, read with patience.
//!
//! In:    bytes of a line.
//! Out:   what is known of it; `None` if it is no JSON object.
//! Never: fails because a key is unknown, missing or of another kind: such a figure is just not known.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What says which line wins: the step, and whether it is a step's line.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(default, deserialize_with = "whole")]
    pub(super) step: Option<u64>,
    #[serde(default, deserialize_with = "presence")]
    pub(super) evaluation: bool,
    /// What became of a save; such a line comes whenever the save has ended, and has no figures of its step.
    #[serde(default, deserialize_with = "presence")]
    pub(super) checkpoint: bool,
}

/// A line of a step or of an evaluation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    #[serde(deserialize_with = "whole")]
    pub(super) step: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) steps: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub(super) epoch: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) loss: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) learning_rate: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) grad_norm: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) tokens: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) trained_tokens: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) tokens_per_second: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) step_ms: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) peak_rss_bytes: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) device_bytes: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) dram_tier_bytes: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) nvme_read_bytes: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) nvme_write_bytes: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) nvme_written_bytes: Option<f64>,
    #[serde(deserialize_with = "paths")]
    pub(super) nvme: Vec<PathBytes>,
    #[serde(deserialize_with = "number")]
    pub(super) stall_ms: Option<f64>,
    #[serde(deserialize_with = "numbers")]
    pub(super) stalls: BTreeMap<String, f64>,
    #[serde(deserialize_with = "number")]
    pub(super) gpu_celsius: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) gpu_watts: Option<f64>,
    #[serde(deserialize_with = "throttle")]
    pub(super) throttle: Option<String>,
    #[serde(deserialize_with = "evaluation")]
    pub(super) evaluation: Option<Evaluation>,
    #[serde(deserialize_with = "presence")]
    pub(super) checkpoint: bool,
}

/// Bytes moved on one NVMe path.
#[derive(Debug)]
pub(super) struct PathBytes {
    pub(super) path: String,
    pub(super) read_bytes: Option<f64>,
    pub(super) written_bytes: Option<f64>,
}

/// Held-out figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Evaluation {
    pub(super) loss: Option<f64>,
    pub(super) rows: Option<u64>,
    pub(super) exact: Option<(u64, u64)>,
}

/// The line's step, without looking at the rest.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    object(bytes).and_then(|bytes| serde_json::from_slice(bytes).ok())
}

/// Everything that is known of the line.
pub(super) fn line(bytes: &[u8]) -> Option<Line> {
    object(bytes).and_then(|bytes| serde_json::from_slice(bytes).ok())
}

/// A list would be taken for the fields in their order.
fn object(bytes: &[u8]) -> Option<&[u8]> {
    bytes.trim_ascii_start().starts_with(b"{").then_some(bytes)
}

fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(finite(&Value::deserialize(from)?))
}

fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(from)?.as_u64())
}

fn presence<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(from).map(|_| true)
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let Value::Object(table) = Value::deserialize(from)? else { return Ok(BTreeMap::new()) };
    Ok(table.iter().filter_map(|(key, value)| Some((key.clone(), finite(value)?))).collect())
}

fn paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBytes>, D::Error> {
    let Value::Array(list) = Value::deserialize(from)? else { return Ok(Vec::new()) };
    let path = |one: &Value| {
        Some(PathBytes {
            path: one["path"].as_str()?.to_string(),
            read_bytes: finite(&one["read_bytes"]),
            written_bytes: finite(&one["written_bytes"]),
        })
    };
    Ok(list.iter().filter_map(path).collect())
}

/// Why the card slowed down; `None` where it did not, or nothing is said. A card may tell a word, a list of words, a number or a truth.
fn throttle<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let said = match Value::deserialize(from)? {
        Value::Bool(true) => "throttled".to_string(),
        Value::Number(bits) if bits.as_f64() != Some(0.0) => format!("reason {bits}"),
        Value::String(word) => word,
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    Ok(Some(said).filter(|said| !said.is_empty() && said != "none"))
}

fn evaluation<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Evaluation>, D::Error> {
    let value = Value::deserialize(from)?;
    let exact = value["exact"].as_array().and_then(|pair| Some((pair.first()?.as_u64()?, pair.get(1)?.as_u64()?)));
    Ok(value.is_object().then(|| Evaluation { loss: finite(&value["loss"]), rows: value["rows"].as_u64(), exact }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_unknown_or_of_another_kind_is_just_not_known() {
        let text = br#"{"step":3,"loss":null,"grad_norm":"big","tokens":512,"new_key":{"a":[1]},"stalls":{"weights_ms":2,"x":"y"},
            "nvme":[{"path":"/a","read_bytes":7},{"no":1}],"throttle":"none","gpu_celsius":61.5}"#;
        let line = line(text).unwrap();
        assert_eq!((line.step, line.loss, line.grad_norm, line.tokens), (Some(3), None, None, Some(512.0)));
        assert_eq!(line.stalls.into_iter().collect::<Vec<_>>(), [("weights_ms".to_string(), 2.0)]);
        assert_eq!((line.nvme.len(), line.nvme[0].read_bytes, line.nvme[0].written_bytes), (1, Some(7.0), None));
        assert_eq!((line.throttle, line.gpu_celsius), (None, Some(61.5)));
        assert!(super::line(br#"{"step":3,"lo"#).is_none());
    }

    #[test]
    fn throttling_is_told_in_any_form() {
        let told = |text: &str| line(format!("{{\"throttle\":{text}}}").as_bytes()).unwrap().throttle;
        assert_eq!(told("true").as_deref(), Some("throttled"));
        assert_eq!(told("4").as_deref(), Some("reason 4"));
        assert_eq!(told(r#"["heat","power"]"#).as_deref(), Some("heat, power"));
        assert_eq!([told("0"), told("false"), told("null"), told("[]"), told(r#""none""#)], [const { None }; 5]);
    }

    #[test]
    fn an_evaluation_is_read_with_its_exact_answers() {
        let evaluation = line(br#"{"step":0,"evaluation":{"loss":2.5,"rows":8,"exact":[1,8]}}"#).unwrap().evaluation;
        assert_eq!(evaluation, Some(Evaluation { loss: Some(2.5), rows: Some(8), exact: Some((1, 8)) }));
        assert!(head(br#"{"step":0,"evaluation":null}"#).unwrap().evaluation);
        assert!(!head(br#"{"step":0}"#).unwrap().evaluation);
    }
}
