//! The machine as a whole: kernel, firmware's name, container, power, sensors.
//!
//! In:    `/proc/sys/kernel`, `/sys/class/{dmi,power_supply,hwmon}`, traces that containers leave.
//! Out:   a [`System`].
//! Never: needs any of them.

use serde::Serialize;

use super::fact::{Fact, Tree, clean};

/// SMBIOS chassis types of machines with a battery: portable to sub-notebook, tablet, convertible, detachable.
const PORTABLE: [u32; 8] = [8, 9, 10, 11, 14, 30, 31, 32];
const SUPPLIES: &str = "/sys/class/power_supply";
const MONITORS: &str = "/sys/class/hwmon";
/// Hottest plausible reading, degrees Celsius: sensors that are not connected show 255 or less than nothing.
const CELSIUS: std::ops::Range<f64> = -40.0..150.0;

/// The machine as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct System {
    /// `linux`, `macos`.
    pub os: String,
    /// The kernel's version.
    pub kernel: Fact<String>,
    /// Maker and model.
    pub machine: Fact<String>,
    /// Whether it is a laptop or a tablet.
    pub is_portable: bool,
    /// `docker`, `kubernetes`, where it runs in a container.
    pub container: Option<String>,
    /// Whether a filter of system calls is on for this process (seccomp).
    pub has_call_filter: bool,
    /// `kernel.io_uring_disabled`: 0 allows io_uring, 1 for privileged users only, 2 forbids it.
    pub io_uring_disabled: Option<u32>,
    /// Whether addresses of devices are translated (IOMMU).
    pub has_iommu: bool,
    /// Where the power comes from.
    pub power: Fact<Power>,
    /// Temperatures.
    pub sensors: Fact<Vec<Sensor>>,
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// The mains.
    Mains,
    /// A battery.
    Battery,
}

/// One temperature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sensor {
    /// `k10temp Tctl`.
    pub name: String,
    /// Now, degrees Celsius.
    pub celsius: f64,
    /// Where the part protects itself, degrees Celsius.
    pub celsius_max: Option<f64>,
}

impl System {
    /// Reads everything.
    pub fn of(tree: &Tree) -> System {
        let dmi = |name: &str| tree.word(&format!("/sys/class/dmi/id/{name}"));
        let named: Vec<String> = ["sys_vendor", "product_name"].iter().filter_map(|name| dmi(name)).collect();
        let chassis = tree.number::<u32>("/sys/class/dmi/id/chassis_type");
        let status = tree.text("/proc/self/status").unwrap_or_default();
        let filter = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let kernel = "/proc/sys/kernel/osrelease";
        let board = tree.word("/proc/device-tree/model");
        let machine = Some(named.join(" ")).filter(|name| !name.is_empty()).or(board);
        System {
            os: std::env::consts::OS.to_string(),
            kernel: Fact::or(tree.word(kernel), format!("{kernel}: not there")),
            machine: Fact::or(machine, "the firmware's name is not shown here"),
            is_portable: chassis.is_some_and(|kind| PORTABLE.contains(&kind)),
            container: container(tree),
            has_call_filter: filter.is_some_and(|mode| mode.trim() != "0"),
            io_uring_disabled: tree.number("/proc/sys/kernel/io_uring_disabled"),
            has_iommu: tree.names("/sys/class/iommu").is_ok_and(|names| !names.is_empty()),
            power: power(tree),
            sensors: sensors(tree),
        }
    }

    /// Major and minor version of a Linux kernel.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut parts = self.kernel.known()?.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

fn container(tree: &Tree) -> Option<String> {
    let groups = tree.text("/proc/self/cgroup").unwrap_or_default();
    let named = tree.word("/run/systemd/container");
    let by_file = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    let by_group = [("kubepods", "kubernetes"), ("/docker", "docker"), ("/lxc", "lxc"), ("libpod", "podman")];
    named
        .or_else(|| by_file.iter().find(|(file, _)| tree.has(file)).map(|(_, name)| name.to_string()))
        .or_else(|| by_group.iter().find(|(part, _)| groups.contains(part)).map(|(_, name)| name.to_string()))
}

/// On mains if any of them is plugged in; a desktop has neither mains nor battery listed.
fn power(tree: &Tree) -> Fact<Power> {
    let names = match tree.names(SUPPLIES) {
        Ok(names) if names.is_empty() => {
            return Fact::unknown(format!("{SUPPLIES} is empty, as on desktops and servers"));
        }
        Ok(names) => names,
        Err(why) => return Fact::unknown(why),
    };
    let file = |supply: &str, name: &str| tree.word(&format!("{SUPPLIES}/{supply}/{name}")).unwrap_or_default();
    let is = |kinds: &[&str], supply: &str| kinds.contains(&file(supply, "type").as_str());
    let plugged = names.iter().any(|supply| is(&["Mains", "USB"], supply) && file(supply, "online") == "1");
    // A mouse has a battery too.
    let own = |supply: &&String| is(&["Battery"], supply) && file(supply, "scope") != "Device";
    let drains = names.iter().filter(own).any(|supply| file(supply, "status") == "Discharging");
    match (plugged, drains) {
        (true, _) => Fact::Known(Power::Mains),
        (false, true) => Fact::Known(Power::Battery),
        (false, false) => Fact::unknown(format!("{SUPPLIES} names neither mains nor a battery in use")),
    }
}

/// Temperatures that are plausible; the kernel counts thousandths of a degree.
fn sensors(tree: &Tree) -> Fact<Vec<Sensor>> {
    let monitors = match tree.names(MONITORS) {
        Ok(monitors) => monitors,
        Err(why) => return elsewhere(why),
    };
    let mut found = Vec::new();
    for monitor in monitors {
        let folder = format!("{MONITORS}/{monitor}");
        let chip = tree.word(&format!("{folder}/name")).unwrap_or(monitor);
        for file in tree.names(&folder).unwrap_or_default() {
            let Some(input) = file.strip_suffix("_input").filter(|input| input.starts_with("temp")) else { continue };
            let celsius = |name: &str| {
                let thousandths = tree.number::<f64>(&format!("{folder}/{input}_{name}"))?;
                Some(thousandths / 1000.0).filter(|celsius| CELSIUS.contains(celsius))
            };
            let Some(now) = celsius("input") else { continue };
            let label = tree.word(&format!("{folder}/{input}_label")).unwrap_or_else(|| input.to_string());
            let celsius_max = celsius("crit").or_else(|| celsius("max")).filter(|most| *most > 0.0);
            found.push(Sensor { name: clean(&format!("{chip} {label}")), celsius: now, celsius_max });
        }
    }
    Fact::Known(found)
}

/// Where there are no such files, other systems may tell.
fn elsewhere(why: String) -> Fact<Vec<Sensor>> {
    if cfg!(target_os = "linux") {
        return Fact::unknown(why);
    }
    let components = sysinfo::Components::new_with_refreshed_list();
    let sensor = |component: &sysinfo::Component| {
        Some(Sensor {
            name: clean(component.label()),
            celsius: f64::from(component.temperature()?),
            celsius_max: component.critical().map(f64::from),
        })
    };
    Fact::Known(components.list().iter().filter_map(sensor).collect())
}
