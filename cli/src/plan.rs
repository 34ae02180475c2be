//! `tune plan`, and the plan as text that `tune run` shows before it starts.
//!
//! In:    a recipe.
//! Out:   about ten lines, or JSON.
//! Never: makes a run directory.

use std::fmt::Write;

use planner::memory::trained_parameters;
use planner::plan::*;
use planner::units::bytes_text;

use crate::args::PlanArguments;
use crate::failure::{Failure, OrFail};
use crate::io_profile::Origin;
use crate::prepare::{self, Prepared};

/// Plans and prints on stdout.
pub fn print(arguments: &PlanArguments) -> Result<(), Failure> {
    let prepared = prepare::prepare(&prepare::recipe(&arguments.recipe)?)?;
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&prepared.plan).or_run()?),
        false => print!("{}", text(&prepared)),
    }
    Ok(())
}

/// The plan for people.
pub fn text(prepared: &Prepared) -> String {
    let plan = &prepared.plan;
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
        ("offload", offload(&plan.offload, prepared.transfers)),
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
    let trainable = trained_parameters(&plan.model.spec, &plan.method) as f64 / 1e6;
    match &plan.method {
        MethodPlan::Lora(lora) => {
            let targets: Vec<&str> = lora.targets.iter().map(|target| target.leaf()).collect();
            let targets = targets.join(" ");
            format!("LoRA rank {} scale {} on {targets}: {trainable:.2} M trainable", lora.rank, lora.scale)
        }
        MethodPlan::Full(full) => {
            let frozen = match (full.embeddings, full.head) {
                (true, true) => "",
                (false, true) => "; the embedding is frozen",
                (true, false) => "; the head is frozen",
                (false, false) => "; embedding and head are frozen",
            };
            format!("full: {trainable:.1} M trainable{frozen}")
        }
    }
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
        "{}, learning rate {}, decay {}, {clip}; {kind}, warmup {warmup}",
        rule(optimizer),
        optimizer.learning_rate,
        optimizer.weight_decay
    )
}

fn rule(optimizer: &OptimizerPlan) -> String {
    match optimizer.kind {
        OptimizerKind::Adamw => "AdamW".to_string(),
        OptimizerKind::Adamw8bit => "AdamW with 8-bit states".to_string(),
        OptimizerKind::AdamwBf16 => "AdamW with bf16 states".to_string(),
        OptimizerKind::Lion => "Lion".to_string(),
        OptimizerKind::Adafactor => "Adafactor".to_string(),
        OptimizerKind::Sgd => format!("SGD with momentum {}", optimizer.momentum),
    }
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

fn offload(offload: &OffloadPlan, transfers: Origin) -> String {
    let tier = |tier| match tier {
        Tier::Device => "device",
        Tier::Dram => "dram",
        Tier::Nvme => "nvme",
    };
    let classes = format!(
        "weights {}, gradients {}, optimizer {}, activations {}",
        tier(offload.weights),
        tier(offload.gradients),
        tier(offload.optimizer),
        tier(offload.activations)
    );
    let update = if offload.update_during_backward { "; update during backward" } else { "" };
    if !offload.uses_nvme() {
        return format!("{classes}{update}");
    }
    let paths: Vec<String> = offload.nvme.iter().map(|path| path.display().to_string()).collect();
    let chunk = bytes_text(offload.buffer_bytes());
    let bound =
        offload.write_budget_bytes.map_or(String::new(), |bytes| format!(", at most {} written", bytes_text(bytes)));
    let (paths, depth) = (paths.join(", "), offload.queue_depth);
    let origin = match transfers {
        Origin::Recipe => "",
        Origin::Measured => " as measured",
        Origin::Usual => " (not measured yet)",
    };
    format!("{classes}{update}; {paths} in chunks of {chunk}, depth {depth}{origin}{bound}")
}

fn memory(memory: &MemoryPlan) -> String {
    let peak = format!("{} of {}", bytes_text(memory.peak_bytes), bytes_text(memory.budget_bytes));
    let mut parts = Vec::new();
    for (tier, name) in [(Tier::Device, ""), (Tier::Dram, "dram: "), (Tier::Nvme, "nvme: ")] {
        let of_tier = memory.terms.iter().chain(&memory.nvme).filter(|term| term.tier == tier && term.bytes > 0);
        let mut terms: Vec<&MemoryTerm> = of_tier.collect();
        terms.sort_by_key(|term| std::cmp::Reverse(term.bytes));
        let terms: Vec<String> = terms.iter().map(|term| format!("{} {}", term.name, bytes_text(term.bytes))).collect();
        if !terms.is_empty() {
            parts.push(format!("{name}{}", terms.join(", ")));
        }
    }
    format!("{peak}: {}", parts.join("; "))
}
