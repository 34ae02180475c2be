//! What a run and the machine for it cost: energy, power supply, mains circuit, PCIe lanes, wear of the drives, money.
//!
//! In:    a [`crate::plan::Plan`] and the machine it is for.
//! Out:   [`Costs`].
//! Never: a price that the user did not give.

mod power;
mod wear;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hardware::{Described, card_link};
use crate::plan::Plan;

pub use wear::written_per_step;

/// Lanes of a drive.
const DRIVE_LANES: u32 = 4;

/// Why there are no costs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// A price or a rate that nobody pays.
    #[error("{what} = {value}: expected a number {expected}")]
    Price {
        /// Which.
        what: &'static str,
        /// As given.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
}

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
    /// Drawn from the mains while training, W.
    pub watts: f64,
    /// Energy of a million tokens, Wh.
    pub wh_per_million_tokens: f64,
    /// Energy of the run, Wh; `None` where its length is not known.
    pub run_wh: Option<f64>,
    /// Its price.
    pub run_cost: Option<f64>,
    /// Power supply to buy, W; of two that share the machine the larger one's; 0 for a machine that brings its own.
    pub psu_watts: u32,
    /// Why this one, in words.
    pub psu: String,
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
    /// Written by the run, TB, the first placing of the data included; `None` where its length is not known. Checkpoints are not counted.
    pub run_written_tb: Option<f64>,
    /// Rated endurance of all drives together, TB: writes are spread evenly, so each counts as much as the weakest.
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

/// What a run of `plan` on `machine` costs.
///
/// # Errors
/// A price that is negative or no number.
pub fn costs(plan: &Plan, machine: &Described, prices: &Prices) -> Result<Costs, CostError> {
    check(prices)?;
    let power = power::power(plan, machine, prices.tariff_per_kwh);
    let break_even = break_even(plan, &power, prices);
    Ok(Costs {
        power,
        lanes: lanes(machine),
        wear: wear::wear(plan, machine),
        hardware_price: prices.hardware,
        break_even,
    })
}

fn check(prices: &Prices) -> Result<(), CostError> {
    let not_negative = [
        ("price per kWh", prices.tariff_per_kwh),
        ("price of the machine", prices.hardware),
        ("price of a rented machine per hour", prices.cloud_per_hour),
    ];
    for (what, value) in not_negative {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
            return Err(CostError::Price { what, value, expected: "of 0 or more" });
        }
    }
    match prices.cloud_tokens_per_second.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
        Some(value) => {
            Err(CostError::Price { what: "tokens a second of the rented machine", value, expected: "above 0" })
        }
        None => Ok(()),
    }
}

fn lanes(machine: &Described) -> Lanes {
    let Some(link) = card_link(machine) else {
        let asked = machine.ssds.len() as u32 * DRIVE_LANES;
        return Lanes { asked, there: machine.cpu.as_ref().map(|cpu| cpu.pcie_lanes), note: None };
    };
    let cards = machine.gpu.as_ref().map_or(0, |(_, count)| *count);
    let drives = machine.ssds.len() as u32;
    let platform = machine.platform();
    let mut notes = Vec::new();
    if link.lanes < link.lanes_asked {
        notes.push(format!(
            "each card gets x{} instead of x{}: {:.1} GB/s each way instead of {:.1}",
            link.lanes,
            link.lanes_asked,
            link.bytes_per_second / 1e9,
            link.full_bytes_per_second() / 1e9
        ));
    }
    let left = platform.pcie_lanes.saturating_sub(cards * link.lanes) / DRIVE_LANES;
    if drives > left {
        let behind = drives - left;
        notes.push(match platform.chipset_link_gb {
            Some(rate) => format!("{behind} of {drives} drives are behind the chipset and share {rate:.1} GB/s"),
            None => format!("{behind} of {drives} drives find no lanes: take a larger platform or fewer drives"),
        });
    }
    Lanes {
        asked: cards * link.lanes_asked + drives * DRIVE_LANES,
        there: machine.cpu.as_ref().map(|cpu| cpu.pcie_lanes),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// Hours of training after which the machine has cost less than renting one that does the same work.
fn break_even(plan: &Plan, power: &Power, prices: &Prices) -> Option<BreakEven> {
    let (hardware, cloud) = (prices.hardware?, prices.cloud_per_hour?);
    let own_rate = plan.time.tokens_per_second;
    // What renting costs for the work that the own machine does in an hour.
    let rented = cloud * own_rate / prices.cloud_tokens_per_second.unwrap_or(own_rate);
    let energy = power.watts / 1000.0 * prices.tariff_per_kwh.unwrap_or(0.0);
    let mut assumed = Vec::new();
    if prices.tariff_per_kwh.is_none() {
        assumed.push("own energy counted as free: no tariff given");
    }
    if prices.cloud_tokens_per_second.is_none() {
        assumed.push("the rented machine taken as equally fast");
    }
    let saved = rented - energy;
    if !(saved > 0.0 && saved.is_finite()) {
        let note = format!("never: an hour's work costs {energy:.2} of own energy and {rented:.2} rented");
        return Some(BreakEven { hours: None, tokens: None, note });
    }
    let hours = hardware / saved;
    let note = match assumed.is_empty() {
        true => format!("each hour saves {saved:.2}: {rented:.2} rented less {energy:.2} of own energy"),
        false => format!("each hour saves {saved:.2}; {}", assumed.join("; ")),
    };
    Some(BreakEven { hours: Some(hours), tokens: Some(hours * 3600.0 * own_rate), note })
}

#[cfg(test)]
mod tests;
