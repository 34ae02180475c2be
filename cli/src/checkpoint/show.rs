//! `tune checkpoints show`: one checkpoint, and where it came from.
//!
//! In:    its manifest.
//! Out:   name and value a line, or JSON.
//! Never: reads the state.

use anyhow::anyhow;
use checkpoints::checkpoint::{self, Manifest};
use planner::units::bytes_text;
use serde_json::{Value, json};

use super::ShowArguments;
use crate::failure::{Failure, OrFail};

/// Prints.
pub(super) fn run(arguments: &ShowArguments) -> Result<(), Failure> {
    let (folder, steps) = arguments.run.checkpoints()?;
    let found = match arguments.step {
        None => steps.last(),
        Some(step) => steps.iter().find(|(of, _)| *of == step),
    };
    let Some((_, path)) = found else {
        return Err(anyhow!("no such checkpoint in {}; `tune checkpoints list` names them", folder.display()))
            .or_input();
    };
    let manifest = checkpoint::quick_look(path).or_run()?;
    if arguments.json {
        let all = json!({ "path": path, "bytes": manifest.bytes(), "manifest": manifest });
        println!("{}", serde_json::to_string_pretty(&all).or_run()?);
        return Ok(());
    }
    println!("{:<16} {}", "checkpoint", path.display());
    rows(&manifest).into_iter().for_each(|(name, value)| println!("{name:<16} {value}"));
    Ok(())
}

fn rows(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let (position, facts) = (&manifest.position, &manifest.facts);
    let plan: Value = serde_json::from_str(&position.plan_fingerprint).unwrap_or_default();
    let last = position.losses.last().map_or("-".to_string(), |loss| format!("{loss:.6}"));
    let mut rows = vec![
        ("step", format!("{} of {}", position.step, position.steps)),
        (
            "data",
            format!(
                "epoch {}, {} steps of it done, seed {}",
                position.epoch + 1,
                position.position_in_epoch,
                position.seed
            ),
        ),
        ("accumulation", format!("{} micro-batches (a step is whole)", position.micro_batches_done)),
        ("loss", last),
        ("held-out loss", facts.held_out_loss.map_or("not measured at this step".into(), |loss| format!("{loss:.6}"))),
        (
            "loss history",
            format!("{} bytes of metrics.jsonl, the last {} here", position.metrics_bytes, position.losses.len()),
        ),
        ("saved for", facts.reason.text().to_string()),
        ("saved at", format!("{} s after 1970 UTC", manifest.saved_at)),
        ("written by", format!("tune {}, format {}", manifest.tool_version, manifest.format_version)),
        ("model files", facts.model.clone()),
        ("schedule", plan["schedule"].to_string()),
        ("optimizer", plan["optimizer"].to_string()),
        ("method", plan["method"].to_string()),
    ];
    if let Some(from) = &facts.started_from {
        rows.push(("started from", from.clone()));
    }
    if position.nvme_written_bytes > 0 {
        rows.push(("nvme written", bytes_text(position.nvme_written_bytes)));
    }
    for file in &manifest.files {
        rows.push(("file", format!("{} {} sha256 {}", file.name, bytes_text(file.bytes), file.sha256)));
    }
    rows
}
