//! What a run will do, a line a subject: the head of `tune plan`, and what `tune run` prints before it starts.
//!
//! In:    a plan.
//! Out:   names and sentences.
//! Never: a number that the plan does not hold.

use planner::memory::trained_parameters;
use planner::plan::*;
use planner::units::bytes_text;

use super::style::pad;
use super::{time, words};
use crate::io_profile::Origin;

/// Terms that the short form names.
const TERMS_SHOWN: usize = 4;

/// Everything that a user decided or had decided, without memory and time.
pub(super) fn facts(plan: &Plan, transfers: Origin) -> Vec<(&'static str, String)> {
    vec![
        ("model", model(&plan.model)),
        ("method", method(plan)),
        ("data", data(&plan.data)),
        ("train", train(plan)),
        ("optimizer", optimizer(plan)),
        ("evaluation", evaluation(plan)),
        ("blocks", blocks(&plan.model)),
        ("offload", offload(&plan.offload, transfers)),
    ]
}

/// The plan before a run: about ten lines, no colour, not folded.
pub fn ten_lines(plan: &Plan, transfers: Origin) -> String {
    let mut lines = vec![("plan", format!("{} on {}", plan.name, plan.device))];
    lines.extend(facts(plan, transfers));
    lines.push(("memory", memory(plan)));
    lines.push(("time", format!("{}; {}", time::headline(&plan.time), time::run(&plan.time))));
    lines.iter().map(|(name, what)| format!("{}{what}\n", pad(name, super::style::INDENT))).collect()
}

fn model(model: &ModelPlan) -> String {
    let spec = &model.spec;
    let parameters = words::count(spec.parameters() as f64);
    let precision = match model.precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let shape = format!("{} blocks, hidden {}, vocabulary {}", spec.n_layers(), spec.hidden, spec.vocabulary);
    format!("{:?}, {parameters} parameters in {precision}: {shape}", spec.family)
}

fn method(plan: &Plan) -> String {
    let trainable = words::count(trained_parameters(&plan.model.spec, &plan.method) as f64);
    match &plan.method {
        MethodPlan::Lora(lora) => {
            let targets: Vec<&str> = lora.targets.iter().map(|target| target.leaf()).collect();
            let targets = targets.join(" ");
            let bits = lora.base.packed_bits();
            let base = bits.map(|bits| format!(" over a base in {bits} bits")).unwrap_or_default();
            format!("LoRA rank {} scale {} on {targets}{base}: {trainable} trainable", lora.rank, lora.scale)
        }
        MethodPlan::Full(full) => {
            let frozen = match (full.embeddings, full.head) {
                (true, true) => "",
                (false, true) => "; the embedding is frozen",
                (true, false) => "; the head is frozen",
                (false, false) => "; embedding and head are frozen",
            };
            format!("full: {trainable} trainable{frozen}")
        }
    }
}

fn data(data: &DataPlan) -> String {
    let files: Vec<String> = data.sources.iter().map(|source| source.path.display().to_string()).collect();
    let packing = if data.packing { "packed" } else { "not packed" };
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

fn evaluation(plan: &Plan) -> String {
    let (Some(evaluation), Some(held_out)) = (&plan.evaluation, &plan.data.held_out) else { return "none".to_string() };
    let exact = match evaluation.exact_match {
        true => format!("loss and exact answers, {} at once", evaluation.batch_rows),
        false => "loss".to_string(),
    };
    let rows = match held_out {
        HeldOut::Source(source) => source.path.display().to_string(),
        HeldOut::Share(share) => format!("{share} of the rows"),
    };
    format!("{rows}; {exact}")
}

fn blocks(model: &ModelPlan) -> String {
    let retained = model.keep.iter().filter(|&&keep| keep == Keep::Retain).count();
    format!("{retained} retain their graph, {} recompute it", model.keep.len() - retained)
}

fn offload(offload: &OffloadPlan, transfers: Origin) -> String {
    let tier = words::tier;
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

/// Peak and its largest terms; what other memories hold.
fn memory(plan: &Plan) -> String {
    let memory = &plan.memory;
    let is_counted = |term: &&MemoryTerm| term.tier == Tier::Device || !plan.device.has_own_memory();
    let mut terms: Vec<&MemoryTerm> = memory.terms.iter().filter(is_counted).filter(|term| term.bytes > 0).collect();
    terms.sort_by_key(|term| std::cmp::Reverse(term.bytes));
    let terms = terms.iter().take(TERMS_SHOWN).map(|term| format!("{} {}", term.name, bytes_text(term.bytes)));
    let dram = if plan.device.has_own_memory() { memory.dram_bytes } else { 0 };
    let others = [("dram", dram), ("nvme", memory.nvme_bytes)].into_iter().filter(|(_, bytes)| *bytes > 0);
    let others: String = others.map(|(name, bytes)| format!("; {name} {}", bytes_text(bytes))).collect();
    format!(
        "{} of {} at the peak ({}): {}{others}",
        bytes_text(memory.peak_bytes),
        bytes_text(memory.budget_bytes),
        words::phase(memory.peak_phase),
        terms.collect::<Vec<_>>().join(", ")
    )
}
