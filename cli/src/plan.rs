//! `tune plan`, and the plan as text that `tune run` shows before it starts.
//!
//! In:    a recipe.
//! Out:   about ten lines, or JSON.
//! Never: makes a run directory.

use std::fmt::Write;

use planner::memory::lora_parameters;
use planner::plan::*;
use planner::units::bytes_text;

use crate::args::PlanArguments;
use crate::failure::{Failure, OrFail};
use crate::prepare;

/// Plans and prints on stdout.
pub fn print(arguments: &PlanArguments) -> Result<(), Failure> {
    let prepared = prepare::prepare(&prepare::recipe(&arguments.recipe)?)?;
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&prepared.plan).or_run()?),
        false => print!("{}", text(&prepared.plan)),
    }
    Ok(())
}

/// The plan for people.
pub fn text(plan: &Plan) -> String {
    let lines = [
        ("plan", plan.name.clone()),
        ("device", device(plan.device)),
        ("model", model(&plan.model)),
        ("method", method(plan)),
        ("data", data(&plan.data)),
        ("train", train(plan)),
        ("optimizer", optimizer(plan)),
        ("evaluation", evaluation(plan.evaluation.as_ref())),
        ("blocks", blocks(&plan.model)),
        ("memory", memory(&plan.memory)),
    ];
    let mut out = String::new();
    for (name, what) in lines {
        writeln!(out, "{name:<11} {what}").expect("writing to a String cannot fail");
    }
    out
}

fn device(device: DeviceChoice) -> String {
    match device {
        DeviceChoice::Cpu => "cpu".to_string(),
        DeviceChoice::Cuda(index) => format!("cuda:{index}"),
    }
}

fn model(model: &ModelPlan) -> String {
    let spec = &model.spec;
    let millions = spec.parameters() as f64 / 1e6;
    let precision = match model.precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let shape = format!("{} blocks, hidden {}, vocabulary {}", spec.n_layers(), spec.hidden, spec.vocabulary);
    format!("{:?}, {millions:.1} M parameters in {precision}: {shape}", spec.family)
}

fn method(plan: &Plan) -> String {
    let (lora, spec) = (&plan.method, &plan.model.spec);
    let trainable = lora_parameters(spec, &lora.targets, lora.rank) as f64 / 1e6;
    let targets: Vec<&str> = lora.targets.iter().map(|target| target.leaf()).collect();
    format!("LoRA rank {} scale {} on {}: {trainable:.2} M trainable", lora.rank, lora.scale, targets.join(" "))
}

fn data(data: &DataPlan) -> String {
    let files: Vec<String> = data.sources.iter().map(|source| source.path.display().to_string()).collect();
    let packing = if data.packing { "packed" } else { "padded" };
    format!("{}; rows of {} tokens, {packing}", files.join(", "), data.sequence_length)
}

fn train(plan: &Plan) -> String {
    let length = match plan.train.duration {
        Duration::Epochs(epochs) => format!("{epochs} epochs"),
        Duration::Steps(steps) => format!("{steps} steps"),
    };
    let (rows, micro) = (plan.train.rows_per_step, plan.train.micro_batch);
    format!(
        "{length} of {} tokens: {} x {micro} rows; seed {}",
        rows * plan.data.sequence_length,
        rows / micro,
        plan.train.seed
    )
}

fn optimizer(plan: &Plan) -> String {
    let optimizer = &plan.optimizer;
    let warmup = match plan.schedule.warmup {
        Warmup::Steps(steps) => format!("{steps} steps"),
        Warmup::Ratio(share) => format!("{share} of the steps"),
    };
    let clip = optimizer.max_grad_norm.map_or("no clipping".to_string(), |bound| format!("clip {bound}"));
    let kind = format!("{:?}", plan.schedule.kind).to_lowercase();
    format!(
        "AdamW, learning rate {}, decay {}, {clip}; {kind}, warmup {warmup}",
        optimizer.learning_rate, optimizer.weight_decay
    )
}

fn evaluation(evaluation: Option<&EvaluationPlan>) -> String {
    let Some(evaluation) = evaluation else { return "none".to_string() };
    let exact = match evaluation.exact_match {
        true => format!("loss and exact answers, {} at once", evaluation.batch_rows),
        false => "loss".to_string(),
    };
    format!("{}; {exact}", evaluation.source.path.display())
}

fn blocks(model: &ModelPlan) -> String {
    let retained = model.keep.iter().filter(|&&keep| keep == Keep::Retain).count();
    format!("{retained} retain their graph, {} recompute it", model.keep.len() - retained)
}

fn memory(memory: &MemoryPlan) -> String {
    let mut terms: Vec<&MemoryTerm> = memory.terms.iter().filter(|term| term.bytes > 0).collect();
    terms.sort_by_key(|term| std::cmp::Reverse(term.bytes));
    let terms: Vec<String> = terms.iter().map(|term| format!("{} {}", term.name, bytes_text(term.bytes))).collect();
    format!("{} of {}: {}", bytes_text(memory.peak_bytes), bytes_text(memory.budget_bytes), terms.join(", "))
}
