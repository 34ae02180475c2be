//! What a run and the machine for it cost: energy, power supply, mains circuit, PCIe lanes, wear of the drives, money.
//!
//! In:    a [`crate::plan::Plan`] and the machine it is for.
//! Out:   [`Costs`].
//! Never: a price that the user did not give.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Prices that the user gives; currency is the user's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prices {
    /// Per kWh.
    pub tariff_per_kwh: Option<f64>,
    /// Of the machine.
    pub hardware: Option<f64>,
    /// Of a rented machine that does the same, per hour.
    pub cloud_per_hour: Option<f64>,
    /// Tokens a second of that rented machine; `None` takes the plan's own.
    pub cloud_tokens_per_second: Option<f64>,
}

/// Electric power and energy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Power {
    /// Drawn while training, W.
    pub watts: f64,
    /// Energy of a million tokens, Wh.
    pub wh_per_million_tokens: f64,
    /// Energy of the run, Wh; `None` where its length is not known.
    pub run_wh: Option<f64>,
    /// Its price.
    pub run_cost: Option<f64>,
    /// Power supply to buy, W.
    pub psu_watts: u32,
    /// What the mains circuit must carry, in words.
    pub circuit: String,
}

/// PCIe lanes asked for and there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lanes {
    /// By cards and drives.
    pub asked: u32,
    /// Of the platform; `None` where no processor was named.
    pub there: Option<u32>,
    /// What happens if they are too few.
    pub note: Option<String>,
}

/// Wear of the drives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wear {
    /// Written by one optimizer step, bytes.
    pub step_written_bytes: u64,
    /// Written by the run, TB; `None` where its length is not known.
    pub run_written_tb: Option<f64>,
    /// Rated endurance of all drives together, TB.
    pub endurance_tb: Option<f64>,
    /// Optimizer steps until then.
    pub steps_until_endurance: Option<f64>,
    /// Share of the endurance that the run takes, 0..=1 and beyond.
    pub run_share: Option<f64>,
}

/// Buying against renting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BreakEven {
    /// Hours of training after which buying is cheaper; `None` if it never is.
    pub hours: Option<f64>,
    /// Tokens trained by then.
    pub tokens: Option<f64>,
    /// Why never, or what was assumed.
    pub note: String,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Costs {
    /// Power and energy.
    pub power: Power,
    /// PCIe lanes.
    pub lanes: Lanes,
    /// Wear; `None` if nothing is written to drives.
    pub wear: Option<Wear>,
    /// Price of the machine, as given.
    pub hardware_price: Option<f64>,
    /// Against renting, where both prices were given.
    pub break_even: Option<BreakEven>,
}
