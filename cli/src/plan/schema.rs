//! The schema of `tune plan --json`.
//!
//! In:    the types of a report.
//! Out:   JSON Schema, the text of `docs/plan.schema.json`.
//! Never: written by hand.

/// JSON Schema of a report, indented, with a line break at the end.
pub fn schema() -> String {
    let schema = schemars::schema_for!(planner::report::Report);
    let text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON: maps with text keys");
    format!("{text}\n")
}
