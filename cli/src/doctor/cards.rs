//! Cards: every display or computing device on the PCI bus, with or without a driver.
//!
//! In:    `/sys/bus/pci/devices`, the AMD driver's files, what NVIDIA's library tells.
//! Out:   [`Card`]s.
//! Never: starts anything on a card.

use kernels::devices::Throttle;
use serde::Serialize;

use super::fact::{Fact, Tree, clean};
use super::link::{Lanes, Link};
use super::nvidia::{Driver, DriverCard};

const DEVICES: &str = "/sys/bus/pci/devices";
/// PCI classes: displays, and accelerators without one.
const CLASSES: [&str; 2] = ["0x03", "0x12"];
/// Where systems keep the names of PCI devices.
const NAMES: [&str; 3] = ["/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids", "/var/lib/pciutils/pci.ids"];

/// Who made a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Maker {
    /// 0x10de.
    Nvidia,
    /// 0x1002.
    Amd,
    /// 0x8086.
    Intel,
    /// A server's remote console, a virtual machine's screen: it shows pictures and computes nothing.
    DisplayOnly,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    /// `0000:01:00.0`.
    pub address: String,
    /// Who made it.
    pub maker: Maker,
    /// As sold.
    pub name: Fact<String>,
    /// The kernel's driver: `nvidia`, `nouveau`, `amdgpu`, `vfio-pci`.
    pub driver: Fact<String>,
    /// Its memory, bytes.
    pub memory_bytes: Fact<u64>,
    /// Memory that is free, bytes.
    pub memory_free_bytes: Fact<u64>,
    /// Its link.
    pub link: Fact<Link>,
    /// How hot it is, degrees Celsius.
    pub celsius: Fact<f64>,
    /// Where it slows down, degrees Celsius.
    pub celsius_max: Option<f64>,
    /// What it takes now, W.
    pub watts: Fact<f64>,
    /// What it may take, W.
    pub watts_cap: Fact<f64>,
    /// What it may take as delivered, W.
    pub watts_default: Option<f64>,
    /// Why its clocks are lower than they could be, now.
    pub throttle: Fact<Vec<Throttle>>,
}

/// All cards, or why they are not known.
pub fn cards(tree: &Tree, driver: &Fact<Driver>) -> Fact<Vec<Card>> {
    let told = driver.known().map(|driver| driver.cards.as_slice()).unwrap_or_default();
    match tree.names(DEVICES) {
        Ok(addresses) => Fact::Known(addresses.iter().filter_map(|address| card(tree, address, told)).collect()),
        Err(_) if !told.is_empty() => Fact::Known(told.iter().map(without_bus).collect()),
        Err(why) => Fact::unknown(why),
    }
}

/// `None` if the device is something else.
fn card(tree: &Tree, address: &str, told: &[DriverCard]) -> Option<Card> {
    let folder = format!("{DEVICES}/{address}");
    let class = tree.word(&format!("{folder}/class"))?;
    let is_card = CLASSES.iter().any(|start| class.starts_with(start));
    if !is_card {
        return None;
    }
    let id = |name: &str| tree.word(&format!("{folder}/{name}")).unwrap_or_default();
    let (vendor, device) = (id("vendor"), id("device"));
    let real = tree.real(&folder).unwrap_or_else(|| folder.clone());
    let names = format!("{DEVICES}: no name for {vendor}:{device}");
    let mut card = Card {
        address: clean(address),
        maker: match vendor.as_str() {
            "0x10de" => Maker::Nvidia,
            "0x1002" => Maker::Amd,
            "0x8086" => Maker::Intel,
            _ => Maker::DisplayOnly,
        },
        name: Fact::or(sold_as(tree, &folder, &vendor, &device), names),
        driver: Fact::or(tree.link_name(&format!("{folder}/driver")), "no driver has taken it"),
        memory_bytes: Fact::unknown("no driver tells it"),
        memory_free_bytes: Fact::unknown("no driver tells it"),
        link: Fact::or(Link::of(tree, &real), format!("{folder} tells no link")),
        celsius: Fact::unknown("no driver tells it"),
        celsius_max: None,
        watts: Fact::unknown("no driver tells it"),
        watts_cap: Fact::unknown("no driver tells it"),
        watts_default: None,
        throttle: Fact::unknown("only NVIDIA's driver tells it"),
    };
    match told.iter().find(|told| told.address == address) {
        Some(told) => told.fill(&mut card),
        None => fill_from_files(tree, &folder, &mut card),
    }
    Some(card)
}

/// What the amdgpu and xe drivers write into files.
fn fill_from_files(tree: &Tree, folder: &str, card: &mut Card) {
    let total = tree.number::<u64>(&format!("{folder}/mem_info_vram_total"));
    let used = tree.number::<u64>(&format!("{folder}/mem_info_vram_used"));
    if let Some(total) = total {
        card.memory_bytes = Fact::Known(total);
        card.memory_free_bytes = Fact::or(used.map(|used| total.saturating_sub(used)), "the driver does not tell it");
    }
    let Ok(monitors) = tree.names(&format!("{folder}/hwmon")) else { return };
    let Some(monitor) = monitors.first() else { return };
    let value = |name: &str, unit: f64| {
        tree.number::<f64>(&format!("{folder}/hwmon/{monitor}/{name}")).map(|value| value / unit).filter(|v| *v > 0.0)
    };
    let silent = "the driver does not tell it";
    // The kernel counts thousandths of a degree and millionths of a watt.
    card.celsius = Fact::or(value("temp1_input", 1e3), silent);
    card.celsius_max = value("temp1_crit", 1e3);
    card.watts = Fact::or(value("power1_average", 1e6).or_else(|| value("power1_input", 1e6)), silent);
    card.watts_cap = Fact::or(value("power1_cap", 1e6), silent);
    card.watts_default = value("power1_cap_default", 1e6);
}

/// In a container NVIDIA's library may work where the bus cannot be seen.
fn without_bus(told: &DriverCard) -> Card {
    let silent = "only NVIDIA's library is there";
    let mut card = Card {
        address: told.address.clone(),
        maker: Maker::Nvidia,
        name: Fact::unknown(silent),
        driver: Fact::Known("nvidia".to_string()),
        memory_bytes: Fact::unknown(silent),
        memory_free_bytes: Fact::unknown(silent),
        link: Fact::unknown(silent),
        celsius: Fact::unknown(silent),
        celsius_max: None,
        watts: Fact::unknown(silent),
        watts_cap: Fact::unknown(silent),
        watts_default: None,
        throttle: Fact::unknown(silent),
    };
    told.fill(&mut card);
    card
}

impl DriverCard {
    /// What the library says wins over the files, but for the slot, which only the files know.
    fn fill(&self, card: &mut Card) {
        let slot_max: Option<Lanes> = card.link.known().and_then(|link| link.slot_max);
        card.name = self.name.clone();
        card.memory_bytes = self.memory_bytes.clone();
        card.memory_free_bytes = self.memory_free_bytes.clone();
        if let Some(link) = self.link.known() {
            card.link = Fact::Known(Link { slot_max, ..*link });
        }
        card.celsius = self.celsius.clone();
        card.celsius_max = self.celsius_max;
        card.watts = self.watts.clone();
        card.watts_cap = self.watts_cap.clone();
        card.watts_default = self.watts_default;
        card.throttle = self.throttle.clone();
    }
}

/// The name a driver gives, else the one in the system's list of PCI devices.
fn sold_as(tree: &Tree, folder: &str, vendor: &str, device: &str) -> Option<String> {
    let told = tree.word(&format!("{folder}/product_name")).or_else(|| tree.word(&format!("{folder}/label")));
    told.or_else(|| NAMES.iter().find_map(|file| listed(&tree.text(file).ok()?, vendor, device)))
}

/// Vendors stand at the start of a line, their devices below them after a tab.
fn listed(text: &str, vendor: &str, device: &str) -> Option<String> {
    let (vendor, device) = (vendor.strip_prefix("0x")?, device.strip_prefix("0x")?);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(vendor));
    lines.next()?;
    let of_vendor = lines.take_while(|line| line.starts_with('\t') || line.starts_with('#') || line.is_empty());
    let name = of_vendor.filter_map(|line| line.strip_prefix('\t')).find_map(|line| line.strip_prefix(device))?;
    Some(clean(name)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_below_its_vendor_only() {
        let text =
            "# list\n1002  AMD\n\t744c  Navi 31\n10de  NVIDIA\n\t2684  AD102 [GeForce RTX 4090]\n\t\t1043 88e2  sub\n";
        assert_eq!(listed(text, "0x10de", "0x2684").as_deref(), Some("AD102 [GeForce RTX 4090]"));
        assert_eq!(listed(text, "0x10de", "0x744c"), None);
        assert_eq!(listed(text, "", "0x744c"), None);
    }
}
