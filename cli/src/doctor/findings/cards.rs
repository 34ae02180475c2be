//! Rules about cards.
//!
//! In:    the inventory; the measured link.
//! Out:   findings.
//! Never: complains about a link that sleeps.

use super::super::cards::{Card, Maker};
use super::super::link::Link;
use super::super::nvidia::Driver;
use super::{Finding, Seen, note, slows, stops};
use kernels::devices::Throttle;

use planner::units::bytes_text;

/// CUDA 12 and the driver that brought it; NVIDIA's "CUDA Toolkit Release Notes", table 3.
const CUDA_OLDEST: i32 = 12_000;
const CUDA_OLDEST_DRIVER: &str = "525.60";
/// CUDA 13 and its driver.
const CUDA_NEW: i32 = 13_000;
const CUDA_NEW_DRIVER: &str = "580.65";
/// A cap this far below the default was set by someone.
const CAP_SHARE: f64 = 0.95;
/// Below this share of its memory a card has other users.
const FREE_SHARE: f64 = 0.85;
/// Below this share of what the link should do, copies are slow.
const LINK_SHARE: f64 = 0.6;
/// This close to the limit a card slows down every now and then, degrees Celsius.
const NEAR_CELSIUS: f64 = 3.0;

/// All rules.
pub(super) fn look(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let machine = seen.machine;
    for card in machine.computing_cards() {
        let name = short_name(card);
        found.extend(usable(seen, card, &name));
        if let Some(link) = card.link.known() {
            found.extend(lanes(seen, link, &name).or_else(|| generation(link, &name)));
        }
        found.extend(heat(card, &name));
        found.extend(power_cap(card, &name));
        found.extend(throttled(card, &name));
        found.extend(memory_taken(card, &name));
    }
    found.extend(machine.nvidia.known().and_then(driver_age));
    found.extend(slow_copies(seen));
    found.extend(several_with_iommu(seen));
}

/// The name as sold, else maker and address.
fn short_name(card: &Card) -> String {
    let maker = match card.maker {
        Maker::Nvidia => "NVIDIA card",
        Maker::Amd => "AMD card",
        Maker::Intel => "Intel card",
        Maker::DisplayOnly => "display",
    };
    card.name.known().cloned().unwrap_or_else(|| format!("{maker} {}", card.address))
}

/// Whether the card can compute for us at all.
fn usable(seen: &Seen<'_>, card: &Card, name: &str) -> Option<Finding> {
    let symptom = format!("{name} stays unused");
    let driver = card.driver.known().map(String::as_str);
    match (card.maker, driver) {
        (_, Some("vfio-pci")) => Some(stops(
            "card_given_away",
            symptom,
            "the kernel keeps it for a virtual machine (driver vfio-pci)",
            "run inside of that virtual machine, or remove the card from vfio-pci.ids on the kernel's command line",
        )),
        (Maker::Nvidia, Some("nouveau")) => Some(stops(
            "card_driver",
            symptom,
            "driver nouveau shows pictures and computes nothing",
            format!(
                "install NVIDIA's driver {CUDA_OLDEST_DRIVER} or newer (Debian: apt install nvidia-driver), then restart"
            ),
        )),
        (Maker::Nvidia, None) => Some(stops(
            "card_driver",
            symptom,
            "no driver has taken it",
            format!(
                "install NVIDIA's driver {CUDA_OLDEST_DRIVER} or newer; with Secure Boot its module must be signed: `mokutil --sb-state`"
            ),
        )),
        (Maker::Nvidia, Some("nvidia")) if seen.machine.nvidia.known().is_none() => Some(stops(
            "card_library",
            symptom,
            seen.machine.nvidia.text(|_| String::new()).replace("not known: ", ""),
            match &seen.machine.system.container {
                Some(_) => {
                    "start the container with its cards: `docker run --gpus all ...` (needs nvidia-container-toolkit)"
                }
                None => {
                    "install the driver's libraries of the same version as its module: `cat /proc/driver/nvidia/version`"
                }
            },
        )),
        (Maker::Nvidia, Some("nvidia")) if !seen.machine.built_for_cuda => Some(stops(
            "card_build",
            symptom,
            "this program was built for the processor only",
            "build it for the card: `cargo build --release --features cuda`",
        )),
        (Maker::Amd | Maker::Intel, _) if card.memory_bytes.known().is_some() => Some(note(
            "card_maker",
            symptom,
            "this program computes on processors and on NVIDIA's cards",
            "none yet: plan with the processor, hardware.device = \"cpu\"",
        )),
        _ => None,
    }
}

fn lanes(seen: &Seen<'_>, link: &Link, name: &str) -> Option<Finding> {
    if link.now.lanes >= link.device_max.lanes {
        return None;
    }
    let (now, most) = (link.awake(), link.device_max);
    let symptom = format!(
        "{name} on x{} lanes: copies reach {:.0} GB/s, x{} would reach {:.0}",
        now.lanes,
        now.usable_gb(),
        most.lanes,
        super::super::link::Lanes { lanes: most.lanes, ..now }.usable_gb()
    );
    let slot = link.slot_max.map(|slot| slot.lanes);
    let (constraint, fix) = match slot {
        _ if seen.machine.system.is_portable => (
            format!("a laptop's board connects x{}", now.lanes),
            "nothing to plug: keep weights on the card (method.kind = \"qlora\"), so that little crosses the link".to_string(),
        ),
        Some(slot) if slot <= link.now.lanes => (
            format!("the slot has x{slot}"),
            format!("move the card to a slot with x{} lanes from the processor; the board's manual names it", most.lanes),
        ),
        _ => (
            "card and slot could do more: contacts, a riser, or lanes shared with another slot".to_string(),
            "reseat the card without its riser; in the BIOS set the slot to x16 (bifurcation off), free M.2 slots that share \
             lanes; `sudo lspci -vv` shows LnkSta"
                .to_string(),
        ),
    };
    Some(slows("card_lanes", symptom, constraint, fix))
}

/// The slot is a generation behind; what it runs at now says nothing, because idle cards lower it.
fn generation(link: &Link, name: &str) -> Option<Finding> {
    let slot = link.slot_max.filter(|slot| slot.generation < link.device_max.generation)?;
    let (now, most) = (link.awake().usable_gb(), link.device_max.usable_gb());
    Some(note(
        "card_generation",
        format!("{name}: copies reach {now:.0} GB/s, the card could do {most:.0}"),
        format!("the slot is PCIe Gen{}, the card Gen{}", slot.generation, link.device_max.generation),
        format!("in the BIOS set the slot to Gen{} or Auto; a riser may hold it back", link.device_max.generation),
    ))
}

fn heat(card: &Card, name: &str) -> Option<Finding> {
    let celsius = card.celsius.known().copied();
    let says_so = card.throttle.known().is_some_and(|reasons| reasons.contains(&Throttle::Heat));
    let is_near = celsius.zip(card.celsius_max).is_some_and(|(now, most)| now >= most - NEAR_CELSIUS);
    if !says_so && !is_near {
        return None;
    }
    let at = celsius.map_or_else(String::new, |celsius| format!(" at {celsius:.0} °C"));
    Some(slows(
        "card_heat",
        format!("{name}{at} lowers its clocks"),
        "it is too hot",
        "clean filters and fans, leave a slot free beside it, raise its fan curve; or lower its power: \
         `sudo nvidia-smi -pl WATTS` costs less speed than heat does",
    ))
}

fn power_cap(card: &Card, name: &str) -> Option<Finding> {
    let (cap, usual) = (*card.watts_cap.known()?, card.watts_default?);
    if cap >= CAP_SHARE * usual {
        return None;
    }
    let fix = match card.maker {
        Maker::Nvidia => {
            format!("`sudo nvidia-smi -i {} -pl {usual:.0}` gives it back; more heat and noise", card.address)
        }
        _ => format!("write {:.0} to power1_cap in its hwmon folder as root; more heat and noise", usual * 1e6),
    };
    Some(slows(
        "card_power_cap",
        format!("{name} may take {cap:.0} W of {usual:.0} W"),
        "someone lowered its power cap",
        fix,
    ))
}

fn throttled(card: &Card, name: &str) -> Option<Finding> {
    let reasons = card.throttle.known()?;
    if reasons.contains(&Throttle::PowerBrake) {
        return Some(slows(
            "card_power_brake",
            format!("{name} runs at a fraction of its clocks"),
            "the power supply signals overload (power brake)",
            "plug every power connector of the card, each on a cable of its own; check the supply's watts with `tune plan`",
        ));
    }
    if reasons.contains(&Throttle::Clocks) {
        return Some(slows(
            "card_clocks",
            format!("{name} runs at lower clocks than it could"),
            "application clocks were set",
            "`sudo nvidia-smi -rac` resets them",
        ));
    }
    reasons.contains(&Throttle::PowerCap).then(|| {
        note(
            "card_at_cap",
            format!("{name} is at its power cap now"),
            "it is busy, and power is what bounds it",
            "nothing if this is your run; else `nvidia-smi` lists who uses it",
        )
    })
}

fn memory_taken(card: &Card, name: &str) -> Option<Finding> {
    let (total, free) = (*card.memory_bytes.known()?, *card.memory_free_bytes.known()?);
    if free as f64 >= FREE_SHARE * total as f64 {
        return None;
    }
    Some(slows(
        "card_memory_taken",
        format!("{name} has {} of {} free", bytes_text(free), bytes_text(total)),
        "other programs hold the rest",
        "`nvidia-smi` lists them; close desktops and browsers that draw on this card, or plug the screen elsewhere",
    ))
}

fn driver_age(driver: &Driver) -> Option<Finding> {
    let cuda = *driver.cuda_version.known()?;
    let version = driver.version.text(Clone::clone);
    let (major, minor) = (cuda / 1000, cuda % 1000 / 10);
    let symptom = format!("NVIDIA driver {version} runs CUDA {major}.{minor} at most");
    match cuda {
        cuda if cuda < CUDA_OLDEST => Some(stops(
            "nvidia_driver_old",
            symptom,
            "kernels here are made for CUDA 12 or newer",
            format!("install driver {CUDA_OLDEST_DRIVER} or newer, then restart"),
        )),
        cuda if cuda < CUDA_NEW => Some(note(
            "nvidia_driver_cuda_12",
            symptom,
            "libraries of CUDA 13 do not load with it",
            format!(
                "use CUDA 12's libraries, or install driver {CUDA_NEW_DRIVER} or newer (not for cards before Turing)"
            ),
        )),
        _ => None,
    }
}

fn slow_copies(seen: &Seen<'_>) -> Option<Finding> {
    let measured = seen.rates?.host_link_bytes_per_second? / 1e9;
    let card = seen.machine.computing_cards().find(|card| card.link.known().is_some())?;
    let expected = card.link.known()?.awake().usable_gb();
    if measured >= LINK_SHARE * expected {
        return None;
    }
    Some(slows(
        "card_copies",
        format!("copies to {} reach {measured:.1} GB/s, its link should do {expected:.0}", short_name(card)),
        "the link sleeps, is shared, or host memory is on the other processor's side",
        "`sudo lspci -vv` during a run shows LnkSta; with several NUMA nodes use `numactl --cpunodebind=N --membind=N` of the card",
    ))
}

fn several_with_iommu(seen: &Seen<'_>) -> Option<Finding> {
    let cards = seen.machine.computing_cards().filter(|card| card.maker == Maker::Nvidia).count();
    (cards > 1 && seen.machine.system.has_iommu).then(|| {
        note(
            "card_peers",
            format!("{cards} cards may not copy to each other directly"),
            "addresses of devices are translated (IOMMU)",
            "`iommu=pt` on the kernel's command line passes the cards through; copies go through host memory otherwise",
        )
    })
}
