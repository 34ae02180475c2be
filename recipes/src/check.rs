//! Ranges: values of the right type that cannot work are refused with their number.
//!
//! In:    a parsed recipe.
//! Out:   nothing, or [`RecipeError::Range`].
//! Never: looks at files or the machine.

use crate::recipe::{ChunkSize, Deduplicate, EvalSection, MethodSection, QueueDepth, TierChoice, UpdateDuringBackward};
use crate::{MaxGradNorm, MicroBatch, Recipe, RecipeError};

/// Smallest and largest `offload.chunk`, bytes.
const CHUNK_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;
/// `offload.chunk` is a multiple of this: what direct reads and writes ask for.
const CHUNK_ALIGNMENT_BYTES: u64 = 4096;

/// Checks every range that needs nothing but the recipe.
pub(crate) fn check(recipe: &Recipe) -> Result<(), RecipeError> {
    check_name(&recipe.name)?;
    check_method(recipe)?;
    check_batches(recipe)?;
    check_data(recipe)?;
    check_length(recipe)?;
    check_optimizer(recipe)?;
    check_offload(recipe)?;
    check_checksum(recipe)?;
    check_counts(recipe)
}

fn demand(holds: bool, key: &'static str, value: impl ToString, expected: &str) -> Result<(), RecipeError> {
    match holds {
        true => Ok(()),
        false => Err(RecipeError::Range { key, value: value.to_string(), expected: expected.to_string() }),
    }
}

fn check_name(name: &str) -> Result<(), RecipeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let holds = !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(plain);
    demand(
        holds,
        "name",
        format!("{name:?}"),
        "it names a directory: 1 to 100 of a-z A-Z 0-9 . _ -, not starting with a dot",
    )
}

fn check_method(recipe: &Recipe) -> Result<(), RecipeError> {
    let MethodSection::Lora(lora) = &recipe.method else { return Ok(()) };
    demand((1..=65536).contains(&lora.rank), "method.rank", lora.rank, "expected 1 to 65536")?;
    demand(lora.alpha.is_finite() && lora.alpha > 0.0, "method.alpha", lora.alpha, "expected > 0")?;
    demand((0.0..1.0).contains(&lora.dropout), "method.dropout", lora.dropout, "expected 0 <= dropout < 1")
}

fn check_batches(recipe: &Recipe) -> Result<(), RecipeError> {
    let (length, tokens) = (recipe.data.sequence_length.fixed(), recipe.train.tokens_per_step.fixed());
    if let Some(length) = length {
        demand((2..=1 << 24).contains(&length), "data.sequence_length", length, "expected 2 to 16777216 tokens")?;
    }
    if let Some(tokens) = tokens {
        demand((2..=1 << 32).contains(&tokens), "train.tokens_per_step", tokens, "expected 2 to 4294967296 tokens")?;
    }
    if let (Some(length), Some(tokens)) = (length, tokens) {
        let holds = tokens.is_multiple_of(length);
        let expected = format!("expected a multiple of data.sequence_length = {length}");
        demand(holds, "train.tokens_per_step", tokens, &expected)?;
    }
    if let (Some(length), Some(tokens), MicroBatch::Rows(micro)) = (length, tokens, recipe.train.micro_batch) {
        let rows = tokens / length;
        let expected = format!("expected a divisor of the {rows} rows of a step (tokens_per_step / sequence_length)");
        demand(rows.is_multiple_of(micro), "train.micro_batch", micro, &expected)?;
    }
    Ok(())
}

fn check_data(recipe: &Recipe) -> Result<(), RecipeError> {
    let data = &recipe.data;
    demand(!data.sources.is_empty(), "data.sources", "[]", "expected at least one [[data.sources]] with a path")?;
    demand(is_date(&data.template_date), "data.template_date", &data.template_date, "expected a day as YYYY-MM-DD")?;
    let held_out = recipe.eval.iter().filter_map(|eval| eval.source.as_ref());
    for source in data.sources.iter().chain(held_out) {
        let weight = source.weight;
        demand(weight > 0.0 && weight <= 1000.0, "data.sources.weight", weight, "expected > 0 and at most 1000")?;
        demand(source.max_rows != Some(0), "data.sources.max_rows", 0, "expected >= 1, or leave the key out")?;
    }
    let expected = "expected data.packing = false with it: packed rows all have one length";
    demand(!(data.group_by_length && data.packing), "data.group_by_length", true, expected)?;
    let clean = &data.clean;
    for (key, share) in [
        ("data.clean.near_similarity", clean.near_similarity),
        ("data.clean.max_repeated_lines", clean.max_repeated_lines),
        ("data.clean.max_repeated_words", clean.max_repeated_words),
        ("data.clean.min_letters", clean.min_letters),
    ] {
        demand(
            share.is_none_or(|share| (0.0..=1.0).contains(&share)),
            key,
            share.unwrap_or_default(),
            "expected 0 to 1",
        )?;
    }
    let (fewest, most) = (clean.min_characters.unwrap_or(0), clean.max_characters.unwrap_or(u64::MAX));
    let expected = format!("expected at least data.clean.min_characters = {fewest}");
    demand(fewest <= most, "data.clean.max_characters", most, &expected)?;
    let near = clean.near_similarity.is_none() || clean.deduplicate == Deduplicate::Near;
    let expected = "expected data.clean.deduplicate = \"near\" with it";
    demand(near, "data.clean.near_similarity", clean.near_similarity.unwrap_or_default(), expected)
}

/// `YYYY-MM-DD` of the Gregorian calendar.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
    let [year, month, day] = parts[..] else { return false };
    if !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return false;
    }
    let (year, month, day): (u32, u32, u32) = (number(year), number(month), number(day));
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    year > 0 && (1..=12).contains(&month) && (1..=days).contains(&day)
}

fn number(digits: &str) -> u32 {
    digits.parse().unwrap_or(0)
}

fn check_held_out(eval: &EvalSection) -> Result<(), RecipeError> {
    match (&eval.source, eval.share) {
        (Some(_), None) => Ok(()),
        (None, Some(share)) => {
            demand(share > 0.0 && share < 1.0, "eval.share", share, "expected > 0 and < 1, a share of the rows")
        }
        (Some(_), Some(share)) => {
            demand(false, "eval.share", format!("{share} and eval.source"), "expected one of the two")
        }
        (None, None) => demand(false, "eval.source", "absent", "expected eval.source or eval.share with [eval]"),
    }
}

fn check_length(recipe: &Recipe) -> Result<(), RecipeError> {
    match (recipe.train.epochs, recipe.train.steps) {
        (Some(epochs), None) => demand(epochs.is_finite() && epochs > 0.0, "train.epochs", epochs, "expected > 0"),
        (None, Some(steps)) => demand((1..1 << 40).contains(&steps), "train.steps", steps, "expected >= 1"),
        (Some(epochs), Some(steps)) => {
            let value = format!("{epochs} and train.steps = {steps}");
            demand(false, "train.epochs", value, "expected one of the two")
        }
        (None, None) => demand(false, "train.epochs", "absent", "expected train.epochs or train.steps"),
    }
}

fn check_optimizer(recipe: &Recipe) -> Result<(), RecipeError> {
    let optimizer = &recipe.optimizer;
    let rate = optimizer.learning_rate;
    demand(rate.is_finite() && rate > 0.0, "optimizer.learning_rate", rate, "expected > 0 and finite")?;
    for beta in optimizer.betas {
        demand((0.0..1.0).contains(&beta), "optimizer.betas", beta, "expected 0 <= beta < 1")?;
    }
    let (epsilon, unused) = (optimizer.epsilon, !optimizer.kind.has_epsilon());
    demand(unused || epsilon.is_finite() && epsilon > 0.0, "optimizer.epsilon", epsilon, "expected > 0 and finite")?;
    let momentum = optimizer.momentum;
    demand((0.0..1.0).contains(&momentum), "optimizer.momentum", momentum, "expected 0 <= momentum < 1")?;
    let decay = optimizer.weight_decay;
    demand(decay.is_finite() && decay >= 0.0, "optimizer.weight_decay", decay, "expected >= 0 and finite")
}

fn check_offload(recipe: &Recipe) -> Result<(), RecipeError> {
    let offload = &recipe.offload;
    for (key, tier) in [
        ("offload.weights", offload.weights),
        ("offload.gradients", offload.gradients),
        ("offload.optimizer", offload.optimizer),
        ("offload.activations", offload.activations),
    ] {
        let holds = tier != TierChoice::Nvme || !offload.nvme.is_empty();
        demand(holds, key, "\"nvme\"", "expected offload.nvme = [\"DIRECTORY\", ...] with it: where its files go")?;
    }
    for (index, path) in offload.nvme.iter().enumerate() {
        let holds = !path.as_os_str().is_empty() && !offload.nvme[..index].contains(path);
        demand(holds, "offload.nvme", format!("{path:?}"), "expected different directories, each named once")?;
    }
    if let ChunkSize::Bytes(chunk) = offload.chunk {
        let holds = CHUNK_BYTES.contains(&chunk) && chunk.is_multiple_of(CHUNK_ALIGNMENT_BYTES);
        let expected = "expected \"64KiB\" to \"64MiB\", a multiple of 4 KiB";
        demand(holds, "offload.chunk", format!("\"{chunk}B\""), expected)?;
    }
    if let QueueDepth::Transfers(depth) = offload.queue_depth {
        demand((1..=4096).contains(&depth), "offload.queue_depth", depth, "expected 1 to 4096")?;
    }
    if let Some(budget) = offload.write_budget_tb {
        let holds = budget.is_finite() && budget > 0.0 && budget <= 1e6;
        demand(holds, "offload.write_budget_tb", budget, "expected > 0 and at most 1000000, or leave the key out")?;
    }
    let clips = recipe.optimizer.max_grad_norm != MaxGradNorm::None;
    let holds = !(clips && offload.update_during_backward == UpdateDuringBackward::Yes);
    let expected =
        "expected optimizer.max_grad_norm = \"none\" with it: the global norm is known after the last gradient only";
    demand(holds, "offload.update_during_backward", "true", expected)
}

fn check_checksum(recipe: &Recipe) -> Result<(), RecipeError> {
    let Some(sum) = &recipe.model.sha256 else { return Ok(()) };
    let holds = sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit());
    demand(holds, "model.sha256", format!("{sum:?}"), "expected 64 hexadecimal digits")
}

fn check_checkpoint(recipe: &Recipe) -> Result<(), RecipeError> {
    let section = &recipe.checkpoint;
    if let Some(minutes) = section.every_minutes {
        let holds = minutes.is_finite() && minutes > 0.0;
        demand(holds, "checkpoint.every_minutes", minutes, "expected > 0 and finite, or leave the key out")?;
    }
    let measured = section.keep_best == 0 || recipe.eval.as_ref().is_some_and(|eval| eval.every_steps.is_some());
    let expected = "expected eval.every_steps with it: the best are those of the least held-out loss";
    demand(measured, "checkpoint.keep_best", section.keep_best, expected)
}

fn check_counts(recipe: &Recipe) -> Result<(), RecipeError> {
    let at_least_one = |key, value: Option<u64>| match value {
        Some(0) => demand(false, key, 0, "expected >= 1, or leave the key out"),
        _ => Ok(()),
    };
    at_least_one("checkpoint.every_steps", recipe.checkpoint.every_steps)?;
    at_least_one("checkpoint.keep_last", Some(recipe.checkpoint.keep_last as u64))?;
    check_checkpoint(recipe)?;
    let Some(eval) = &recipe.eval else { return Ok(()) };
    at_least_one("eval.every_steps", eval.every_steps)?;
    at_least_one("eval.max_new_tokens", Some(eval.max_new_tokens as u64))?;
    at_least_one("eval.max_rows", eval.max_rows.map(|rows| rows as u64))?;
    check_held_out(eval)
}
