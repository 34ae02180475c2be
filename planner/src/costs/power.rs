//! Power, energy, power supply, mains circuit.
//!
//! In:    a plan's speed, a machine's parts.
//! Out:   [`Power`].
//! Never: what idles between runs.
//!
//! While training, cards draw 0.95 of their board power (they are busy, but not in every moment), the processor 0.4 of its package power
//! beside cards and 0.95 of it where it computes itself, a drive 8 W, board, memory and fans 60 W together. A good power supply passes on
//! 0.92 (80 PLUS Gold to Platinum at half load, K). Unified machines: 0.95 of what the whole machine draws, with its supply's losses.
//!
//! Power supply: 1.3 times the sum of what all parts may draw for long. ATX 3.0 supplies bear twice their rating for 100 microseconds
//! (Intel's ATX12VO/ATX design guide, K), which covers the short peaks of cards; the 0.3 keeps them near the load of best efficiency.
//!
//! Circuits carry 0.8 of their rating for hours (the rule of the US electrical code, applied to all): 230 V 16 A 2944 W, 120 V 20 A
//! 1920 W, 120 V 15 A 1440 W.

use super::Power;
use crate::hardware::Described;
use crate::plan::Plan;

const CARD_SHARE: f64 = 0.95;
const CPU_SHARE_BESIDE_CARDS: f64 = 0.4;
const CPU_SHARE_ALONE: f64 = 0.95;
const DRIVE_WATTS: f64 = 8.0;
const BOARD_WATTS: f64 = 60.0;
const SUPPLY_EFFICIENCY: f64 = 0.92;
const SUPPLY_MARGIN: f64 = 1.3;
/// Ratings that are sold, W.
const SUPPLIES: [u32; 11] = [550, 650, 750, 850, 1000, 1200, 1300, 1500, 1600, 2000, 2400];
/// Circuits with what they carry for hours, W.
const CIRCUITS: [(&str, f64); 3] = [("120 V 15 A", 1440.0), ("120 V 20 A", 1920.0), ("230 V 16 A", 2944.0)];

/// Power of a machine that works on `plan`.
pub(super) fn power(plan: &Plan, machine: &Described, tariff_per_kwh: Option<f64>) -> Power {
    let watts = wall_watts(machine);
    let (psu_watts, psu) = supply(machine);
    let run_wh = plan.time.run_seconds.map(|seconds| watts * seconds / 3600.0);
    Power {
        watts,
        wh_per_million_tokens: watts * 1e6 / plan.time.tokens_per_second / 3600.0,
        run_wh,
        run_cost: run_wh.zip(tariff_per_kwh).map(|(wh, tariff)| wh / 1000.0 * tariff),
        psu_watts,
        psu,
        circuit: circuit(watts),
    }
}

fn wall_watts(machine: &Described) -> f64 {
    let drives = machine.ssds.len() as f64 * DRIVE_WATTS;
    let cpu = machine.platform().watts;
    let parts = match &machine.gpu {
        Some((gpu, _)) if gpu.unified => gpu.watts * CARD_SHARE,
        Some((gpu, count)) => gpu.watts * f64::from(*count) * CARD_SHARE + cpu * CPU_SHARE_BESIDE_CARDS + BOARD_WATTS,
        None => cpu * CPU_SHARE_ALONE + BOARD_WATTS,
    };
    (parts + drives) / SUPPLY_EFFICIENCY
}

fn supply(machine: &Described) -> (u32, String) {
    if let Some(unified) = machine.unified() {
        return (0, format!("{} brings its own", unified.title));
    }
    let cards = machine.gpu.as_ref().map_or(0.0, |(gpu, count)| gpu.watts * f64::from(*count));
    let most = cards + machine.platform().watts + machine.ssds.len() as f64 * DRIVE_WATTS + BOARD_WATTS;
    let wanted = most * SUPPLY_MARGIN;
    let fitting = |wanted: f64| SUPPLIES.into_iter().find(|&rating| f64::from(rating) >= wanted);
    let why = format!("parts may draw {most:.0} W, and 1.3 times that is {wanted:.0} W");
    match (fitting(wanted), fitting(wanted / 2.0)) {
        (Some(rating), _) => (rating, format!("{rating} W: {why}")),
        (None, Some(rating)) => (rating, format!("two of {rating} W, the cards divided between them: {why}")),
        (None, None) => {
            let largest = SUPPLIES[SUPPLIES.len() - 1];
            let count = (wanted / f64::from(largest)).ceil();
            (largest, format!("{count:.0} of {largest} W, a server's redundant supplies: {why}"))
        }
    }
}

fn circuit(watts: f64) -> String {
    let carrying: Vec<&str> = CIRCUITS.iter().filter(|(_, most)| watts <= *most).map(|(name, _)| *name).collect();
    match carrying[..] {
        [_, _, _] => format!("{watts:.0} W: any household circuit carries it for hours (120 V 15 A: 1440 W)"),
        [] => {
            let circuits = (watts / 2944.0).ceil();
            format!(
                "{watts:.0} W: no single household circuit carries it for hours; {circuits:.0} of 230 V 16 A (2944 W each) do"
            )
        }
        _ => format!("{watts:.0} W for hours: {}; a 120 V 15 A circuit carries 1440 W", carrying.join(" or ")),
    }
}
