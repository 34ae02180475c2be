//! A new run from the weights of a checkpoint: `tune run RECIPE --from CHECKPOINT`.
//!
//! In:    a restored checkpoint, the plan, parameters filled as a fresh run fills them.
//! Out:   the checkpoint's masters in their place; optimizer state, step and data order are a fresh run's.
//! Never: takes a part: every tensor must be there in its shape, and mean the same.

use checkpoints::checkpoint::{CheckpointError, Restored};
use checkpoints::difference::{Difference, differences, text};
use planner::plan::Plan;
use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::parameters::Parameters;
use crate::state::{PARAMETER, floats, stored};

/// Replaces the masters by those of the checkpoint.
pub(crate) fn begin_from(restored: &Restored, plan: &Plan, parameters: &Parameters) -> Result<(), TrainError> {
    let refused = |problem: String| TrainError::BeginFrom { checkpoint: restored.path.clone(), problem };
    let made_by: Value = serde_json::from_str(&restored.position.plan_fingerprint).unwrap_or_default();
    let differing = differences(&meaning(&made_by["method"]), &meaning(&json!(plan.method)));
    if !differing.is_empty() {
        return Err(refused(text(&differing)));
    }
    let differing = tensors_that_differ(restored, parameters);
    if !differing.is_empty() {
        return Err(refused(text(&differing)));
    }
    for (number, group) in parameters.layout().iter().enumerate() {
        for slot in &group.slots {
            let name = stored(&slot.name);
            let values = floats(restored.tensors.bytes_of(&name).map_err(CheckpointError::from)?);
            parameters.set(number, slot, &values)?;
            restored.tensors.forget(&name);
        }
    }
    Ok(())
}

/// What of a method decides which tensors there are and what they do: the kind, and for adapters rank, scale and targets.
fn meaning(method: &Value) -> Value {
    match method.get("lora") {
        Some(lora) => json!({ "method.kind": "lora", "method.rank": lora["rank"], "method.alpha": lora["alpha"],
            "method.rank_stabilized": lora["rank_stabilized"], "method.targets": lora["targets"] }),
        None => {
            json!({ "method.kind": "full", "method.embeddings": method["full"]["embeddings"], "method.head": method["full"]["head"] })
        }
    }
}

/// Names with the shapes that a checkpoint has and that the plan asks for. As texts: a shape is one leaf, not one for each size.
fn tensors_that_differ(restored: &Restored, parameters: &Parameters) -> Vec<Difference> {
    let shape = |shape: &[usize]| Value::from(format!("{shape:?}"));
    let has = restored.tensors.tensors();
    let has: Map<String, Value> =
        has.filter_map(|(name, of)| Some((name.strip_prefix(PARAMETER)?.to_string(), shape(of)))).collect();
    let slots = parameters.layout().iter().flat_map(|group| &group.slots);
    let wants: Map<String, Value> = slots.map(|slot| (slot.name.clone(), shape(&slot.shape))).collect();
    differences(&Value::Object(has), &Value::Object(wants))
}
