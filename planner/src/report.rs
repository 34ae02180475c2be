//! What `tune plan` says: the plan, the machine it is for, and what follows from both.
//!
//! In:    a plan, or why there is none.
//! Out:   [`Report`], shown to people or written as JSON. Its schema is `docs/plan.schema.json`.
//! Never: a field that changes its meaning without a new `schema` number.

mod rule;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::costs::Costs;
use crate::hardware::Described;
use crate::plan::{Plan, Remedy};
use crate::serving::Serving;

pub use rule::rule_of_twenty;

/// Version of the report's meaning.
pub const SCHEMA: u32 = 1;

/// Why the plan does not fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shortfall {
    /// `memory`, `cuda:0 memory`, or the key of the budget that is short.
    pub tier: String,
    /// Smallest need of what the recipe allows, bytes.
    pub needed_bytes: u64,
    /// What may be used, bytes.
    pub budget_bytes: u64,
    /// Settings that would fit, the cheapest in time first; empty if none does.
    pub remedies: Vec<Remedy>,
    /// What to say beyond them.
    pub advice: String,
}

/// The next best plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alternative {
    /// What differs, as recipe keys.
    pub settings: String,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// What counts against the budget.
    pub peak_bytes: u64,
    /// Host memory.
    pub dram_bytes: u64,
    /// Files.
    pub nvme_bytes: u64,
    /// What it trades against the plan, in words.
    pub trade: String,
}

/// The rule of thumb of 20 bytes a parameter, beside what is planned. Source: Rajbhandari et al. 2021, arXiv:2104.07857, section 3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleOfTwenty {
    /// 20 bytes for every parameter.
    pub rule_bytes: u64,
    /// All tiers of this plan together.
    pub planned_bytes: u64,
    /// Why they differ, term by term.
    pub why: Vec<String>,
}

/// What `tune plan` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The plan; if it does not fit, the least that the recipe allows.
    pub plan: Plan,
    /// Why it does not fit.
    pub shortfall: Option<Shortfall>,
    /// The next best.
    pub alternatives: Vec<Alternative>,
    /// The machine, if it was described instead of read.
    pub machine: Option<Described>,
    /// The rule of thumb.
    pub rule_of_twenty: RuleOfTwenty,
    /// What will serve the result.
    pub serving: Vec<Serving>,
    /// Money, power, wear.
    pub costs: Option<Costs>,
    /// What was assumed, and what this version cannot do yet.
    pub notes: Vec<String>,
}
