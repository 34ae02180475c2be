//! Reports for tests: plans that the planner made, with costs and remedies of a made-up machine.
//!
//! In:    nothing.
//! Out:   a run on a processor, one beside a card with files, one on eight cards, one that does not fit.
//! Never: a plan that the planner did not make.

use planner::architecture::{Activation, DecoderSpec, Family, LayerSpec, RopeScaling, RopeSpec};
use planner::costs::{BreakEven, Costs, Lanes, Power, Wear};
use planner::hardware::{Asked, Catalogue, Described};
use planner::machine::CudaCard;
use planner::plan::{Phase, PhaseTime, Plan, Remedy, Resource, ResourceTime, Tier, TimePlan};
use planner::rates::{NvmeRates, Rates};
use planner::report::{Alternative, Report, RuleOfTwenty, SCHEMA, Shortfall};
use planner::serving::Serving;
use planner::{Machine, PlanError};

const RECIPE: &str = r#"name = "sample"
model.source = "x.gguf"
model.precision = "bf16"
method = { kind = "lora", rank = 16, alpha = 32 }
data = { sequence_length = 2048, sources = [{ path = "a.jsonl" }] }
train = { steps = 1000, tokens_per_step = 65536 }
optimizer = { kind = "adamw", learning_rate = 1e-4 }
schedule = { kind = "cosine" }
"#;

/// Llama-3.1-8B's numbers, with `layers` blocks.
pub fn llama(layers: usize) -> DecoderSpec {
    DecoderSpec {
        family: Family::Llama,
        vocabulary: 128_256,
        hidden: 4096,
        intermediate: 14_336,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
        norm_epsilon: 1e-5,
        norm_offset: false,
        activation: Activation::Silu,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sandwich_norms: false,
        embedding_scale: None,
        attention_scale: 0.088_388_347_648_318_44,
        tied_head: false,
        layers: vec![LayerSpec { window: None, rope: 0 }; layers],
        ropes: vec![RopeSpec { theta: 5e5, scaling: RopeScaling::None }],
        max_positions: 131_072,
    }
}

/// A machine with `ram` bytes free and cards with `cards` bytes free each.
pub fn machine(ram: u64, cards: &[u64]) -> Machine {
    let mut rates = Rates::usual(16);
    rates.nvme = Some(NvmeRates { read_bytes_per_second: 6e9, write_bytes_per_second: 4e9 });
    Machine {
        memory_available_bytes: ram,
        memory_total_bytes: ram,
        cgroup_available_bytes: None,
        cores: 16,
        fast_bf16: true,
        cuda: cards.iter().map(|&available_bytes| CudaCard { available_bytes, fast_bf16: true }).collect(),
        vulkan: Vec::new(),
        missing: Default::default(),
        device_rates: Vec::new(),
        io: Vec::new(),
        cards: cards.len().max(1) as u32,
        rates,
    }
}

/// The planner's answer.
pub fn plan(set: &[&str], spec: DecoderSpec, machine: &Machine) -> Result<Plan, PlanError> {
    let set: Vec<String> = set.iter().map(|text| text.to_string()).collect();
    planner::plan(&recipes::parse(RECIPE, "sample.toml", &set).unwrap(), spec, machine)
}

/// A report with nothing beside the plan.
pub fn bare(plan: Plan) -> Report {
    let parameters = plan.model.spec.parameters();
    let planned = plan.memory.peak_bytes + plan.memory.nvme_bytes;
    Report {
        schema: SCHEMA,
        rule_of_twenty: RuleOfTwenty {
            rule_bytes: 20 * parameters,
            planned_bytes: planned,
            why: vec!["adapters: the base has no gradients, masters or moments".to_string()],
        },
        plan,
        shortfall: None,
        alternatives: Vec::new(),
        machine: None,
        serving: Vec::new(),
        costs: None,
        notes: Vec::new(),
    }
}

/// LoRA on a processor with 64 GB.
pub fn lora_on_a_processor() -> Report {
    bare(plan(&[], llama(32), &machine(64_000_000_000, &[])).unwrap())
}

/// Full training of 8B, optimizer in files, beside a described card; everything that a report may hold is there.
pub fn full_beside_a_card() -> Report {
    let set =
        ["method={kind=\"full\"}", "offload.nvme=[\"/mnt/nvme0\"]", "offload.optimizer=nvme", "hardware.device=cuda:0"];
    let mut plan = plan(&set, llama(32), &machine(128_000_000_000, &[24_000_000_000])).unwrap();
    // Pinned buffers are marked by the memory model; here the first dram term stands for them.
    for phase in &mut plan.memory.phases {
        if let Some(term) = phase.terms.iter_mut().find(|term| term.tier == Tier::Dram) {
            term.pinned = true;
        }
    }
    plan.time = busy(plan.time);
    let step = plan.time.step_seconds;
    plan.time.remedies = vec![
        Remedy {
            change: "a second drive like the first, striped: offload.nvme = [\"/mnt/a\", \"/mnt/b\"]".into(),
            step_seconds: step * 0.66,
        },
        Remedy { change: "optimizer.kind = \"adamw8bit\"".into(), step_seconds: step * 0.8 },
    ];
    let mut report = bare(plan);
    report.machine = Some(described(1));
    report.alternatives = vec![Alternative {
        settings: "offload.optimizer = \"dram\", train.micro_batch = 2".into(),
        step_seconds: step * 1.1,
        peak_bytes: report.plan.memory.peak_bytes - 2_000_000_000,
        dram_bytes: report.plan.memory.dram_bytes + 50_000_000_000,
        nvme_bytes: 0,
        trade: "50 GB more host memory, no wear of the drive".into(),
    }];
    report.serving = vec![
        Serving {
            format: "bf16".into(),
            weights_bytes: 16_060_522_496,
            context_tokens: 8192,
            cache_bytes: 1_073_741_824,
            workspace_bytes: 800_000_000,
            total_bytes: 17_934_264_320,
        },
        Serving {
            format: "q4_k_m".into(),
            weights_bytes: 4_920_000_000,
            context_tokens: 8192,
            cache_bytes: 1_073_741_824,
            workspace_bytes: 800_000_000,
            total_bytes: 6_793_741_824,
        },
    ];
    report.costs = Some(costs());
    report.notes = vec!["the tariff is a guess until --tariff is given".into()];
    report
}

/// The same tokens, in phases that use every resource.
fn busy(time: TimePlan) -> TimePlan {
    let phase = |phase, resources: &[(Resource, f64)]| {
        let resources = resources.iter().map(|&(resource, seconds)| ResourceTime { resource, amount: 1e12, seconds });
        let resources: Vec<_> = resources.collect();
        let longest = resources.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap();
        PhaseTime { phase, seconds: longest.seconds, bottleneck: longest.resource, resources: resources.clone() }
    };
    use Resource::*;
    let phases = vec![
        phase(Phase::Forward, &[(Compute, 7.4), (DeviceMemory, 2.1), (HostLink, 3.2), (Dram, 0.8)]),
        phase(Phase::Backward, &[(Compute, 21.0), (DeviceMemory, 5.0), (HostLink, 9.2), (Dram, 1.7), (AllReduce, 0.4)]),
        phase(Phase::Update, &[(NvmeRead, 16.1), (NvmeWrite, 24.1), (CpuOptimizer, 4.2), (Dram, 6.4)]),
    ];
    let step_seconds = phases.iter().map(|phase| phase.seconds).sum::<f64>();
    TimePlan {
        bottleneck: NvmeWrite,
        step_seconds_low: step_seconds * 0.8,
        step_seconds_high: step_seconds * 1.3,
        tokens_per_second: 65_536.0 / step_seconds,
        run_seconds: time.steps.map(|steps| steps as f64 * step_seconds),
        phases,
        step_seconds,
        ..time
    }
}

/// LoRA of 8B on eight cards with a long name.
pub fn eight_cards() -> Report {
    let mut report =
        bare(plan(&["hardware.device=cuda:0"], llama(32), &machine(512_000_000_000, &[96_000_000_000; 8])).unwrap());
    let mut described = described(8);
    if let Some((gpu, _)) = &mut described.gpu {
        gpu.title = "RTX PRO 6000 Blackwell Max-Q Workstation Edition <96 GB & more>".into();
    }
    report.machine = Some(described);
    report.costs = Some(costs());
    report
}

/// Full training of 8B in 16 GB: the least that the recipe allows is planned on a larger machine, as the report does.
pub fn does_not_fit() -> Report {
    let set = ["method={kind=\"full\"}", "train.micro_batch=1", "train.keep=recompute"];
    let mut report = bare(plan(&set, llama(32), &machine(512_000_000_000, &[])).unwrap());
    report.plan.memory.budget_bytes = 16_000_000_000;
    report.shortfall = Some(Shortfall {
        tier: "memory".into(),
        needed_bytes: report.plan.memory.peak_bytes,
        budget_bytes: 16_000_000_000,
        remedies: vec![Remedy {
            change: "method.kind = \"lora\" with offload.weights = \"nvme\"".into(),
            step_seconds: 12.5,
        }],
        advice: "A drive of 100 GB and offload.nvme would hold masters and moments.".into(),
    });
    report
}

fn costs() -> Costs {
    Costs {
        power: Power {
            watts: 540.0,
            wh_per_million_tokens: 28.1,
            run_wh: Some(1840.0),
            run_cost: Some(0.64),
            psu_watts: 850,
            psu: "a supply of 850 W".into(),
            circuit: "any household circuit: 2.6 A at 230 V".into(),
        },
        lanes: Lanes { asked: 20, there: Some(24), note: None },
        wear: Some(Wear {
            step_written_bytes: 96_000_000_000,
            run_written_tb: Some(96.0),
            endurance_tb: Some(1200.0),
            steps_until_endurance: Some(12_500.0),
            run_share: Some(0.08),
        }),
        hardware_price: Some(3500.0),
        break_even: Some(BreakEven {
            hours: Some(812.0),
            tokens: Some(15.6e9),
            note: "at 1.20 an hour and the same speed".into(),
        }),
    }
}

fn described(cards: u32) -> Described {
    let asked = Asked {
        gpu: Some(format!("rtx-4090x{cards}")),
        ram: Some(128_000_000_000),
        nvme: vec!["990-pro-2tb".into()],
        cpu: Some("ryzen-9-7950x".into()),
    };
    Catalogue::built_in().describe(&asked).unwrap()
}
