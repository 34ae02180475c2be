//! The report's sections as names and values.
//!
//! In:    a [`Report`].
//! Out:   [`Section`]s.
//! Never: leaves out what is not known: it says why.

use std::fmt::Write;

use planner::rates::{Rates, RatesOrigin};
use planner::units::bytes_text;

use super::super::Report;
use super::super::cards::{Card, Maker};
use super::super::devices::Usable;
use super::super::drives::{Bus, Drive};
use super::super::fact::Fact;
use super::super::folders::{Folder, Kind};
use super::super::inventory::Inventory;
use super::super::memory::Memory;
use super::super::processor::Processor;
use super::super::system::{Power, Sensor, System};
use super::Section;
use kernels::devices::Throttle;

/// Most temperatures shown: the hottest.
const SENSORS_MAX: usize = 8;

/// All sections.
pub fn sections(report: &Report) -> Vec<Section> {
    let mut sections = machine(&report.inventory);
    sections.push(Section { title: "Measured", rows: rates(&report.rates) });
    sections
}

/// What the machine is.
pub fn machine(machine: &Inventory) -> Vec<Section> {
    vec![
        Section { title: "Machine", rows: system(&machine.system) },
        Section { title: "Processor", rows: processor(&machine.processor) },
        Section { title: "Memory", rows: memory(&machine.memory) },
        Section { title: "Cards", rows: cards(machine) },
        Section { title: "Drives", rows: drives(&machine.drives) },
        Section { title: "Folders", rows: machine.folders.iter().flat_map(folder).collect() },
    ]
}

fn row(name: &str, value: String) -> (String, String) {
    (name.to_string(), value)
}

fn system(system: &System) -> Vec<(String, String)> {
    let mut rows = vec![
        row("model", system.machine.text(Clone::clone)),
        row("system", format!("{} {}", system.os, system.kernel.text(Clone::clone))),
    ];
    if let Some(container) = &system.container {
        rows.push(row("container", container.clone()));
    }
    let power = |power: &Power| match power {
        Power::Mains => "mains".to_string(),
        Power::Battery => "battery".to_string(),
    };
    rows.push(row("power", system.power.text(power)));
    rows.push(row("temperatures", system.sensors.text(|sensors| temperatures(sensors))));
    rows
}

fn temperatures(sensors: &[Sensor]) -> String {
    let mut hottest: Vec<&Sensor> = sensors.iter().collect();
    hottest.sort_by(|a, b| b.celsius.total_cmp(&a.celsius));
    let shown: Vec<String> = hottest.iter().take(SENSORS_MAX).map(|sensor| temperature(sensor)).collect();
    match (shown.is_empty(), sensors.len().saturating_sub(SENSORS_MAX)) {
        (true, _) => "no sensor is shown here".to_string(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{}; {more} cooler ones", shown.join(", ")),
    }
}

fn temperature(sensor: &Sensor) -> String {
    let limit = sensor.celsius_max.map_or_else(String::new, |most| format!(" of {most:.0}"));
    format!("{} {:.0}{limit} °C", sensor.name, sensor.celsius)
}

fn processor(processor: &Processor) -> Vec<(String, String)> {
    let count = |fact: &Fact<u64>| fact.text(u64::to_string);
    let kind = if processor.is_virtual { ", of a virtual machine" } else { "" };
    let mut use_of =
        format!("{} of {} threads may be used", count(&processor.threads_allowed), count(&processor.threads));
    if let Some(quota) = processor.quota_threads {
        write!(use_of, ", with the time of {quota:.1}").expect("writing to a String cannot fail");
    }
    let instructions = match processor.instructions.is_empty() {
        true => "none of those that help is told".to_string(),
        false => processor.instructions.join(", "),
    };
    let clock = match (processor.clock_mhz_allowed, processor.clock_mhz_max) {
        (Some(allowed), Some(most)) => format!(", up to {allowed:.0} of {most:.0} MHz"),
        _ => String::new(),
    };
    let governor = processor.governor.text(|governor| format!("governor {governor}"));
    vec![
        row("model", format!("{}, {}{kind}", processor.model.text(Clone::clone), processor.architecture)),
        row("cores", format!("{} cores; {use_of}", count(&processor.cores))),
        row("NUMA nodes", count(&processor.numa_nodes)),
        row("instructions", instructions),
        row("clock", format!("{governor}{clock}")),
    ]
}

fn memory(memory: &Memory) -> Vec<(String, String)> {
    let bytes = |fact: &Fact<u64>| fact.text(|bytes| bytes_text(*bytes));
    let limit = memory.group_limit_bytes.map_or("no limit".to_string(), |limit| format!("limit {}", bytes_text(limit)));
    let swap = memory.swap.text(|areas| match areas.is_empty() {
        true => "off".to_string(),
        false => {
            let area = |swap: &super::super::memory::Swap| {
                format!("{}, {} of {} used", swap.name, bytes_text(swap.used_bytes), bytes_text(swap.bytes))
            };
            areas.iter().map(area).collect::<Vec<_>>().join("; ")
        }
    });
    let lock = memory.lock_limit_bytes.text(|limit| match *limit {
        u64::MAX => "no limit".to_string(),
        limit => bytes_text(limit),
    });
    let lock = if memory.may_lock_all { format!("{lock}, which does not bind this user") } else { lock };
    let modules = memory.modules.text(|modules| {
        let module = |module: &super::super::modules::Module| {
            let speed = module.running_mts.map_or_else(String::new, |mts| format!(" at {mts} MT/s"));
            format!("{:.0} GiB{speed}", module.bytes as f64 / f64::from(1 << 30))
        };
        modules.iter().map(module).collect::<Vec<_>>().join(", ")
    });
    vec![
        row("size", format!("{}; {} available; {limit}", bytes(&memory.total_bytes), bytes(&memory.available_bytes))),
        row("modules", modules),
        row("swap", swap),
        row("huge pages", memory.huge_pages.text(Clone::clone)),
        row("may be locked", lock),
    ]
}

fn cards(machine: &Inventory) -> Vec<(String, String)> {
    let driver = machine.nvidia.text(|driver| {
        let cuda = driver.cuda_version.text(|cuda| format!("CUDA {}.{} at most", cuda / 1000, cuda % 1000 / 10));
        format!("{}, {cuda}", driver.version.text(Clone::clone))
    });
    let mut rows = vec![row("NVIDIA driver", driver.replace("not known: ", ""))];
    match &machine.cards {
        Fact::Unknown { unknown } => rows.push(row("cards", format!("not known: {unknown}"))),
        Fact::Known(cards) if cards.is_empty() => rows.push(row("cards", "none on the PCI bus".to_string())),
        Fact::Known(cards) => cards.iter().for_each(|one| rows.extend(card(one))),
    }
    for (kind, devices) in [("cuda", &machine.devices.cuda), ("vulkan", &machine.devices.vulkan)] {
        match devices {
            Fact::Unknown { unknown } => rows.push(row(kind, unknown.clone())),
            Fact::Known(devices) => rows.extend(devices.iter().map(|one| row(&one.device, usable(one)))),
        }
    }
    rows
}

fn usable(device: &Usable) -> String {
    let kind = if device.is_software { ", in software" } else { "" };
    let free = device.free_bytes.map_or_else(String::new, |free| format!(", {} free", bytes_text(free)));
    let memory = if device.shares_memory { "of the host's memory" } else { "of its own" };
    format!("{}{kind}, {}{free} {memory}", device.name, bytes_text(device.memory_bytes))
}

fn card(card: &Card) -> Vec<(String, String)> {
    let driver = card.driver.known().map_or("no driver".to_string(), |driver| format!("driver {driver}"));
    let name = card.name.known().cloned().unwrap_or_else(|| "name not known".to_string());
    if card.maker == Maker::DisplayOnly {
        return vec![row(&card.address, format!("{name}, {driver}; shows pictures only"))];
    }
    let memory = match (card.memory_bytes.known(), card.memory_free_bytes.known()) {
        (Some(total), Some(free)) => format!("{}, {} free", bytes_text(*total), bytes_text(*free)),
        (Some(total), None) => bytes_text(*total),
        _ => card.memory_bytes.text(|_| String::new()),
    };
    let link = card.link.text(|link| {
        let slot = link.slot_max.map_or_else(String::new, |slot| format!(", slot {}", slot.text()));
        format!(
            "{} now; card {}{slot}; {:.0} GB/s awake",
            link.now.text(),
            link.device_max.text(),
            link.awake().usable_gb()
        )
    });
    let mut rows = vec![row(&card.address, format!("{name}, {driver}")), row("", format!("memory {memory}"))];
    rows.push(row("", format!("link {link}")));
    let mut state = Vec::new();
    if let Some(celsius) = card.celsius.known() {
        let limit = card.celsius_max.map_or_else(String::new, |most| format!(" of {most:.0}"));
        state.push(format!("{celsius:.0}{limit} °C"));
    }
    if let Some(watts) = card.watts.known() {
        let cap = card.watts_cap.known().map_or_else(String::new, |cap| format!(" of {cap:.0}"));
        state.push(format!("{watts:.0}{cap} W"));
    }
    if let Some(reasons) = card.throttle.known() {
        state.push(throttle(reasons));
    }
    if !state.is_empty() {
        rows.push(row("", state.join(", ")));
    }
    rows
}

fn throttle(reasons: &[Throttle]) -> String {
    let word = |reason: &Throttle| match reason {
        Throttle::Heat => "heat",
        Throttle::PowerCap => "its power cap",
        Throttle::PowerBrake => "the power supply",
        Throttle::Clocks => "set clocks",
    };
    match reasons.is_empty() {
        true => "not throttled".to_string(),
        false => format!("throttled by {}", reasons.iter().map(word).collect::<Vec<_>>().join(" and ")),
    }
}

fn drives(drives: &Fact<Vec<Drive>>) -> Vec<(String, String)> {
    match drives {
        Fact::Unknown { unknown } => vec![row("drives", format!("not known: {unknown}"))],
        Fact::Known(drives) if drives.is_empty() => vec![row("drives", "none is shown here".to_string())],
        Fact::Known(drives) => drives.iter().map(|drive| row(&drive.name, drive_text(drive))).collect(),
    }
}

fn drive_text(drive: &Drive) -> String {
    let bus = match drive.bus {
        Bus::Nvme => "NVMe",
        Bus::Usb => "USB",
        Bus::Ata => "SATA",
        Bus::Mmc => "memory card",
        Bus::Virtual => "virtual",
        Bus::Mapped => "made of others",
        Bus::Network => "network",
        Bus::Other => "other bus",
    };
    let mut parts: Vec<String> = drive.model.known().cloned().into_iter().collect();
    parts.push(bytes_text(drive.bytes));
    parts.push(bus.to_string());
    parts.extend(drive.link.map(|link| match link.now == link.device_max {
        true => link.now.text(),
        false => format!("{} of {}", link.now.text(), link.device_max.text()),
    }));
    parts.extend(drive.is_rotational.known().map(|turns| if *turns { "rotational" } else { "SSD" }.to_string()));
    if drive.is_encrypted {
        parts.push("encrypted".to_string());
    }
    if !drive.made_of.is_empty() {
        parts.push(format!("on {}", drive.made_of.join(" and ")));
    }
    parts.join(", ")
}

fn folder(folder: &Folder) -> Vec<(String, String)> {
    let file_system = folder.file_system.text(Clone::clone);
    let mount = folder.mount.known().map_or_else(String::new, |mount| format!(" at {mount}"));
    let below = match (folder.drive.known(), folder.kind.known()) {
        (Some(drive), _) => format!(" on {drive}"),
        (None, Some(Kind::Memory)) => " in memory".to_string(),
        (None, Some(Kind::Network)) => " of another machine".to_string(),
        (None, _) => String::new(),
    };
    let room =
        folder.room.text(|room| format!("{} of {} free", bytes_text(room.free_bytes), bytes_text(room.total_bytes)));
    let engine = folder.engine.text(|engine| {
        let direct = if engine.is_direct { "O_DIRECT" } else { "no O_DIRECT" };
        let buffers = match (engine.kind.as_str(), engine.has_registered_buffers) {
            ("io_uring", true) => ", buffers registered",
            ("io_uring", false) => ", buffers not registered",
            _ => "",
        };
        format!("{}{buffers}; {direct}", engine.why)
    });
    let profile = folder.profile.text(|profile| {
        let rate = |bytes: u64| format!("{}/s", bytes_text(bytes));
        format!(
            "reads {}, writes {} in chunks of {}, {} in flight",
            rate(profile.read_bytes_per_second),
            rate(profile.write_bytes_per_second),
            bytes_text(profile.chunk_bytes),
            profile.queue_depth
        )
    });
    vec![
        row(&folder.path.display().to_string(), format!("{file_system}{below}{mount}; {room}")),
        row("", format!("transfers: {engine}")),
        row("", format!("measured: {}", profile.replace("not known: ", ""))),
    ]
}

fn rates(rates: &Fact<Rates>) -> Vec<(String, String)> {
    let rates = match rates {
        Fact::Known(rates) => rates,
        Fact::Unknown { unknown } => return vec![row("rates", unknown.clone())],
    };
    let per_second = |bytes: f64| format!("{:.1} GB/s", bytes / 1e9);
    let flops = |flops: f64| format!("{:.0} GFLOP/s", flops / 1e9);
    let origin = match rates.origin {
        RatesOrigin::Measured => "on this machine",
        RatesOrigin::Catalogue => "by the parts' published figures",
        RatesOrigin::Usual => "usual figures of such a machine",
    };
    let mut rows = vec![
        row("from", origin.to_string()),
        row("products", format!("f32 {}, bf16 {}", flops(rates.f32.matmul_flops), flops(rates.bf16.matmul_flops))),
        row("memory", format!("triad {}", per_second(rates.dram_bytes_per_second))),
    ];
    if let Some(link) = rates.host_link_bytes_per_second {
        rows.push(row("host to card", per_second(link)));
    }
    if let Some(link) = rates.card_link_bytes_per_second {
        rows.push(row("card to card", per_second(link)));
    }
    rows
}
