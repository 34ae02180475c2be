//! What `tune plan` shows, from outside: the page, the chart, JSON that follows its schema.
//!
//! In:    a recipe for the tiny Llama fixture.
//! Out:   facts about stdout and files.
//! Never: a figure of the plan; the planner's own tests have those.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::parity::fixture;

fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"name = "shown"
model = {{ source = {model:?}, precision = "f32" }}
method = {{ kind = "lora", rank = 2, alpha = 4 }}
data = {{ sequence_length = 128, too_long = "truncate", sources = [{{ path = {rows:?} }}] }}
train = {{ steps = 3, tokens_per_step = 256 }}
optimizer = {{ kind = "adamw", learning_rate = 1e-3 }}
schedule = {{ kind = "constant" }}
"#,
        model = fixture("llama").display().to_string(),
        rows = fixture("data/train.jsonl").display().to_string(),
    );
    fs::write(folder.path().join("recipe.toml"), text).unwrap();
    folder
}

fn tune(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
    command.current_dir(folder).env("TUNE_CACHE", folder.join("cache")).env_remove("NO_COLOR").args(arguments);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn schema_text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.schema.json")).unwrap()
}

/// Whether a value follows a schema, so strictly that every property must be there and no other may.
fn follows(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return follows(value, &root["$defs"][name.trim_start_matches("#/$defs/")], root);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[key].as_array() {
            let results: Vec<_> = choices.iter().map(|choice| follows(value, choice, root)).collect();
            let reasons = || results.iter().filter_map(|one| one.clone().err()).collect::<Vec<_>>().join(" | ");
            return if results.iter().any(Result::is_ok) { Ok(()) } else { Err(reasons()) };
        }
    }
    if let Some(one) = schema.get("const") {
        return if value == one { Ok(()) } else { Err(format!("{value} is not {one}")) };
    }
    if let Some(all) = schema["enum"].as_array() {
        return if all.contains(value) { Ok(()) } else { Err(format!("{value} is not one of {all:?}")) };
    }
    match value {
        Value::Object(fields) => object_follows(fields, schema, root),
        Value::Array(items) => {
            let of = |index: usize| schema["prefixItems"].get(index).unwrap_or(&schema["items"]);
            items.iter().enumerate().try_for_each(|(index, item)| follows(item, of(index), root))
        }
        _ => has_type(value, &schema["type"]),
    }
}

fn object_follows(fields: &serde_json::Map<String, Value>, schema: &Value, root: &Value) -> Result<(), String> {
    let known = schema["properties"].as_object().ok_or("an object where the schema has none")?;
    if let Some(key) = fields.keys().find(|key| !known.contains_key(*key)) {
        return Err(format!("the schema has no {key}"));
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(key) = required.into_iter().find(|key| !fields.contains_key(*key)) {
        return Err(format!("{key} is missing"));
    }
    fields.iter().try_for_each(|(key, value)| follows(value, &known[key], root).map_err(|why| format!("{key}: {why}")))
}

fn has_type(value: &Value, types: &Value) -> Result<(), String> {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Number(number) if number.is_f64() => "number",
        _ => "integer",
    };
    let is = |one: &Value| one == name || (one == "number" && name == "integer");
    let matches = types.as_array().map_or_else(|| is(types), |all| all.iter().any(is));
    if matches { Ok(()) } else { Err(format!("{value} is no {types}")) }
}

#[test]
fn the_schema_that_ships_is_the_one_the_types_generate() {
    let generated = schemars::schema_for!(planner::report::Report);
    let shipped: Value = serde_json::from_str(&schema_text()).unwrap();
    let why = "docs/plan.schema.json is old: tune plan --schema > docs/plan.schema.json";
    assert_eq!(shipped, serde_json::to_value(&generated).unwrap(), "{why}");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(stdout(&tune(folder.path(), &["plan", "--schema"], &[])), schema_text(), "{why}");
}

#[test]
fn a_plans_json_has_the_keys_that_the_schema_demands_and_none_that_it_lacks() {
    let folder = place();
    let report: Value =
        serde_json::from_str(&stdout(&tune(folder.path(), &["plan", "recipe.toml", "--json"], &[]))).unwrap();
    let schema: Value = serde_json::from_str(&schema_text()).unwrap();
    follows(&report, &schema, &schema).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(report["plan"]["name"], "shown");
    let mut more = report.clone();
    more["plan"]["memory"]["surprise"] = Value::from(1);
    assert!(follows(&more, &schema, &schema).is_err(), "the check sees a key that the schema lacks");
}

#[test]
fn a_page_into_a_pipe_has_no_colour_unless_it_is_asked_for() {
    let folder = place();
    let plain = stdout(&tune(folder.path(), &["plan", "recipe.toml"], &[]));
    assert!(!plain.contains('\u{1b}'), "{plain}");
    assert!(plain.starts_with("plan        shown on cpu: fits\n"), "{plain}");
    for start in ["model", "method", "memory", "  memory, fullest in", "time", "  run"] {
        assert!(plain.lines().any(|line| line.starts_with(start)), "no line starts with {start:?}: {plain}");
    }
    let forced = stdout(&tune(folder.path(), &["plan", "recipe.toml"], &[("CLICOLOR_FORCE", "1")]));
    assert!(forced.contains("\u{1b}["), "{forced}");
    let refused = [("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")];
    let refused = stdout(&tune(folder.path(), &["plan", "recipe.toml"], &refused));
    assert!(!refused.contains('\u{1b}'), "{refused}");
}

#[test]
fn a_chart_is_written_beside_the_page() {
    let folder = place();
    let page = stdout(&tune(folder.path(), &["plan", "recipe.toml", "--svg", "plan.svg"], &[]));
    assert!(page.starts_with("plan "));
    let chart = fs::read_to_string(folder.path().join("plan.svg")).unwrap();
    assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n") && chart.contains(">shown on cpu<"), "{chart}");
    let output = tune(folder.path(), &["plan", "recipe.toml", "--svg", "no/such/folder.svg"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot write the chart: no/such/folder.svg"), "{text}");
}

#[test]
fn a_reader_that_stops_early_is_no_panic() {
    let folder = place();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
    command.current_dir(folder.path()).env("TUNE_CACHE", folder.path().join("cache")).args(["plan", "--schema"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.as_str()), (Some(0), ""));
}
