//! Names of phases, tiers and resources, and numbers as people write them.
//!
//! In:    values of a plan.
//! Out:   words and figures, three significant digits.
//! Never: used where a program reads.

use planner::plan::{Phase, Resource, Tier};
use planner::rates::RatesOrigin;

/// A phase in a table.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Load => "load",
        Phase::Forward => "forward",
        Phase::BackwardStart => "backward start",
        Phase::Backward => "backward",
        Phase::Update => "update",
        Phase::Evaluation => "evaluation",
        Phase::Save => "save",
        Phase::Export => "export",
    }
}

/// A resource in a sentence.
pub fn resource(resource: Resource) -> &'static str {
    match resource {
        Resource::Compute => "compute",
        Resource::DeviceMemory => "device memory",
        Resource::HostLink => "host link",
        Resource::Dram => "host memory",
        Resource::NvmeRead => "NVMe reads",
        Resource::NvmeWrite => "NVMe writes",
        Resource::CpuOptimizer => "CPU optimizer",
        Resource::AllReduce => "all-reduce",
    }
}

/// A tier, as a recipe writes it.
pub fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Device => "device",
        Tier::Dram => "dram",
        Tier::Nvme => "nvme",
    }
}

/// Where the rates come from, in a sentence.
pub fn origin(origin: RatesOrigin) -> &'static str {
    match origin {
        RatesOrigin::Measured => "rates measured on this machine",
        RatesOrigin::Catalogue => "rates from published figures of the parts",
        RatesOrigin::Usual => "rates are usual ones: `tune doctor` measures this machine",
    }
}

/// `850 ms`, `3.21 s`, `12.1 min`, `3.4 h`, `5.2 days`; `-` for what is no number.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "-".to_string(),
        s if s > 0.0 && s < 0.009_995 => format!("{:.2} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 119.95 => format!("{s:.1} s"),
        s if s < 7197.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_620.0 => format!("{:.1} h", s / 3600.0),
        s if s < 8_640_000.0 => format!("{:.1} days", s / 86_400.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Three significant digits, and thousands as they are: `0.831`, `12.4`, `5333`.
pub fn figure(amount: f64) -> String {
    match amount {
        a if !a.is_finite() => "-".to_string(),
        0.0 => "0".to_string(),
        a if a.abs() < 0.9995 => format!("{a:.3}"),
        a if a.abs() < 9.995 => format!("{a:.2}"),
        a if a.abs() < 99.95 => format!("{a:.1}"),
        a => format!("{a:.0}"),
    }
}

/// `135 M`, `8.03 B`, `1.20 T`: counts of tokens and parameters, in the thousands of their field (B is 10^9).
pub fn count(amount: f64) -> String {
    match amount {
        a if !a.is_finite() => "-".to_string(),
        a if a < 1e3 => format!("{a:.0}"),
        a if a < 999.5e3 => format!("{} k", figure(a / 1e3)),
        a if a < 999.5e6 => format!("{} M", figure(a / 1e6)),
        a if a < 999.5e9 => format!("{} B", figure(a / 1e9)),
        a => format!("{} T", figure(a / 1e12)),
    }
}

/// `950 Wh`, `1.24 kWh`.
pub fn energy(watt_hours: f64) -> String {
    match watt_hours {
        wh if wh < 999.5 => format!("{} Wh", figure(wh)),
        wh => format!("{} kWh", figure(wh / 1e3)),
    }
}

/// Money without a currency: that is the user's own.
pub fn money(amount: f64) -> String {
    match amount {
        a if !a.is_finite() => "-".to_string(),
        a if a.abs() < 1000.0 => format!("{a:.2}"),
        a => format!("{a:.0}"),
    }
}

/// `68 %`; one digit below ten.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if !p.is_finite() => "-".to_string(),
        p if p != 0.0 && p.abs() < 9.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}
