//! Facts about costs, on the plans of shipped recipes and described machines.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::decide::tests::smollm2;
use crate::hardware::{Asked, Catalogue};
use crate::plan::{Precision, Tier};

const FULL_NVME: &str = include_str!("../../../recipes/smollm2-135m-full-nvme.toml");

fn machine(gpu: &str, cpu: &str, nvme: &[&str]) -> Described {
    let nvme = nvme.iter().map(|name| name.to_string()).collect();
    let cpu = (!cpu.is_empty()).then(|| cpu.to_string());
    Catalogue::built_in().describe(&Asked { gpu: Some(gpu.to_string()), ram: Some(24_000_000_000), nvme, cpu }).unwrap()
}

fn plan_of(set: &[&str], on: &Described) -> Plan {
    let set: Vec<String> = set.iter().map(|set| set.to_string()).collect();
    let recipe = recipes::parse(FULL_NVME, "full-nvme.toml", &set).unwrap();
    crate::plan(&recipe, smollm2(), &on.machine(&recipe.offload.nvme)).unwrap()
}

fn costs_of(on: &Described, prices: Prices) -> Costs {
    costs(&plan_of(&[], on), on, &prices).unwrap()
}

fn near(value: f64, expected: f64, share: f64) {
    assert!((value / expected - 1.0).abs() <= share, "{value} is not {expected}");
}

#[test]
fn the_shipped_full_recipe_writes_the_163_gb_that_its_run_measured() {
    let desktop = machine("none", "", &["990-pro-2tb"]);
    let wear = costs_of(&desktop, Prices::default()).wear.unwrap();
    near(wear.run_written_tb.unwrap() * 1000.0, 163.0, 0.03);
    near(wear.step_written_bytes as f64 * 96.0, 163e9, 0.10);
    assert_eq!(wear.endurance_tb, Some(1200.0));
    near(wear.steps_until_endurance.unwrap(), 1200e12 / wear.step_written_bytes as f64, 1e-9);
    near(wear.run_share.unwrap(), 163e9 / 1200e12, 0.03);
}

#[test]
fn gradients_are_written_by_every_micro_batch_and_masters_once() {
    let on = machine("none", "", &["990-pro-2tb"]);
    let clipped =
        ["optimizer.max_grad_norm=1.0", "train.tokens_per_step=4096", "train.micro_batch=2", "train.keep=recompute"];
    let plan = plan_of(&clipped, &on);
    let elements = crate::memory::Sizes::of(&plan.model.spec, &plan.method).elements;
    let inputs = 30 * 1024 * 576 * 4;
    assert_eq!(plan.model.precision, Precision::F32);
    assert_eq!(written_per_step(&plan), 12 * elements + 4 * (4 * elements + inputs));
}

#[test]
fn bf16_weights_of_full_training_are_written_again_by_every_step() {
    let on = machine("none", "", &["990-pro-2tb"]);
    let plan = plan_of(&["model.precision=bf16", "train.keep=recompute", "train.micro_batch=2"], &on);
    let elements = crate::memory::Sizes::of(&plan.model.spec, &plan.method).elements;
    assert_eq!(written_per_step(&plan), 14 * elements + 30 * 1024 * 576 * 2);
}

#[test]
fn frozen_weights_on_a_drive_are_never_written_again() {
    let on = machine("none", "", &["990-pro-2tb"]);
    let set = [
        "method={ kind = \"lora\", rank = 8, alpha = 16 }",
        "offload.optimizer=device",
        "offload.gradients=device",
        "offload.activations=device",
    ];
    let plan = plan_of(&set, &on);
    assert!(plan.offload.weights == Tier::Nvme && plan.memory.nvme_bytes > 100_000_000);
    assert_eq!(written_per_step(&plan), 0);
    let wear = costs(&plan, &on, &Prices::default()).unwrap().wear.unwrap();
    assert_eq!((wear.step_written_bytes, wear.steps_until_endurance), (0, None));
    near(wear.run_written_tb.unwrap(), plan.memory.nvme_bytes as f64 / 1e12, 1e-9);
}

#[test]
fn the_weakest_of_striped_drives_counts_for_all() {
    let on = machine("none", "", &["990-pro-2tb", "p3-plus-2tb"]);
    assert_eq!(costs_of(&on, Prices::default()).wear.unwrap().endurance_tb, Some(880.0));
    let without = machine("none", "", &[]);
    let wear = costs(&plan_of(&[], &on), &without, &Prices::default()).unwrap().wear.unwrap();
    assert_eq!((wear.endurance_tb, wear.run_share), (None, None));
}

#[test]
fn two_a4500_in_a_threadripper_draw_609_watts_and_get_a_1000_watt_supply() {
    let power = costs_of(&machine("rtx-a4500x2", "threadripper-3960x", &["990-pro-2tb"]), Prices::default()).power;
    near(power.watts, (400.0 * 0.95 + 280.0 * 0.4 + 8.0 + 60.0) / 0.92, 1e-9);
    // 400 + 280 + 8 + 60 = 748 W, 1.3 times that is 972 W.
    assert_eq!(power.psu_watts, 1000);
    assert!(power.psu.starts_with("1000 W: parts may draw 748 W"), "{}", power.psu);
    assert!(power.circuit.contains("any household circuit"), "{}", power.circuit);
}

#[test]
fn supplies_and_circuits_grow_with_the_cards() {
    let power = |gpu: &str| costs_of(&machine(gpu, "epyc-7742", &["2TB"]), Prices::default()).power;
    let four = power("rtx-4090x4");
    assert!(four.psu.starts_with("two of 1500 W") && four.psu_watts == 1500, "{}", four.psu);
    assert!(four.circuit.contains("230 V 16 A") && !four.circuit.contains("120 V 20 A"), "{}", four.circuit);
    let three = power("rtx-4090x3");
    assert!(three.circuit.contains("120 V 20 A or 230 V 16 A"), "{}", three.circuit);
    let eight = power("h100-sxmx8");
    assert!(eight.psu.contains("4 of 2400 W"), "{}", eight.psu);
    assert!(
        eight.circuit.contains("no single household circuit") && eight.circuit.contains("3 of 230 V"),
        "{}",
        eight.circuit
    );
    let spark = costs_of(&machine("dgx-spark", "", &["2TB"]), Prices::default()).power;
    assert_eq!(spark.psu_watts, 0);
    assert!(spark.watts < 160.0 && spark.psu.contains("brings its own"));
}

#[test]
fn energy_follows_from_watts_and_time() {
    let on = machine("rtx-4090", "epyc-7742", &["990-pro-2tb"]);
    let plan = plan_of(&[], &on);
    let power = costs(&plan, &on, &Prices { tariff_per_kwh: Some(0.3), ..Prices::default() }).unwrap().power;
    near(power.wh_per_million_tokens, power.watts * 1e6 / plan.time.tokens_per_second / 3600.0, 1e-9);
    near(power.run_wh.unwrap(), power.watts * plan.time.run_seconds.unwrap() / 3600.0, 1e-9);
    near(power.run_cost.unwrap(), power.run_wh.unwrap() / 1000.0 * 0.3, 1e-9);
}

#[test]
fn too_few_lanes_are_said_with_the_rate_that_is_left() {
    let lanes = costs_of(&machine("rtx-4090x2", "ryzen-9-5950x", &["990-pro-2tbx2"]), Prices::default()).lanes;
    assert_eq!((lanes.asked, lanes.there), (40, Some(20)));
    let note = lanes.note.unwrap();
    assert!(
        note.starts_with("each card gets x8 instead of x16: 12.5 GB/s each way instead of 25.0; 1 of 2 drives"),
        "{note}"
    );
    let enough = costs_of(&machine("rtx-4090x2", "threadripper-3960x", &["990-pro-2tbx2"]), Prices::default()).lanes;
    assert_eq!((enough.asked, enough.there, enough.note), (40, Some(56), None));
    let unnamed = costs_of(&machine("rtx-4060", "", &["990-pro-2tb"]), Prices::default()).lanes;
    assert_eq!((unnamed.asked, unnamed.there, unnamed.note), (12, None, None));
}

#[test]
fn buying_pays_after_price_over_what_an_hour_saves() {
    let on = machine("rtx-4090", "epyc-7742", &["990-pro-2tb"]);
    let prices =
        Prices { tariff_per_kwh: Some(0.3), hardware: Some(3000.0), cloud_per_hour: Some(0.8), ..Prices::default() };
    let all = costs_of(&on, prices.clone());
    let even = all.break_even.unwrap();
    let saved = 0.8 - all.power.watts / 1000.0 * 0.3;
    near(even.hours.unwrap(), 3000.0 / saved, 1e-9);
    near(even.tokens.unwrap(), even.hours.unwrap() * 3600.0 * plan_of(&[], &on).time.tokens_per_second, 1e-9);
    let rate = plan_of(&[], &on).time.tokens_per_second;
    let twice = Prices { cloud_tokens_per_second: Some(2.0 * rate), ..prices };
    near(costs_of(&on, twice).break_even.unwrap().hours.unwrap(), 3000.0 / (saved - 0.4), 1e-9);
}

#[test]
fn buying_never_pays_where_own_energy_costs_more_than_renting() {
    let on = machine("rtx-4090", "epyc-7742", &["990-pro-2tb"]);
    let prices =
        Prices { tariff_per_kwh: Some(5.0), hardware: Some(1.0), cloud_per_hour: Some(0.8), ..Prices::default() };
    let even = costs_of(&on, prices.clone()).break_even.unwrap();
    assert_eq!((even.hours, even.tokens), (None, None));
    assert!(even.note.starts_with("never: an hour's work costs"), "{}", even.note);
    assert!(costs_of(&on, Prices { hardware: None, ..prices }).break_even.is_none());
}

#[test]
fn prices_below_zero_or_no_number_are_refused_with_the_value() {
    let on = machine("rtx-4090", "", &["990-pro-2tb"]);
    let plan = plan_of(&[], &on);
    let refusal = |prices: Prices| costs(&plan, &on, &prices).unwrap_err().to_string();
    assert_eq!(
        refusal(Prices { hardware: Some(-5.0), ..Prices::default() }),
        "price of the machine = -5: expected a number of 0 or more"
    );
    assert!(refusal(Prices { tariff_per_kwh: Some(f64::NAN), ..Prices::default() }).contains("per kWh = NaN"));
    assert!(refusal(Prices { cloud_per_hour: Some(f64::INFINITY), ..Prices::default() }).contains("= inf"));
    assert!(
        refusal(Prices { cloud_tokens_per_second: Some(0.0), ..Prices::default() })
            .contains("= 0: expected a number above 0")
    );
}
