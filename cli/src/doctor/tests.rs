//! Facts that recorded machines give, and that no content of a file stops the doctor.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use super::cards::Maker;
use super::drives::Bus;
use super::fact::{Fact, Tree};
use super::findings::findings;
use super::folders::Kind;
use super::link::Lanes;
use super::show;
use super::system::Power;
use super::testing::{Entry, Recorded, asked, driver, entries, tried};
use super::{Report, inventory::Inventory};

#[test]
fn a_workstation_is_told_as_it_was_recorded() {
    let recorded = Recorded::of("workstation");
    let machine = recorded.inventory(asked(vec![]));
    assert_eq!(machine.processor.model, Fact::Known("AMD Ryzen 5 5600X 6-Core Processor".to_string()));
    assert_eq!((machine.processor.cores, machine.processor.threads), (Fact::Known(6), Fact::Known(12)));
    assert_eq!(machine.processor.instructions, ["FMA", "F16C", "AVX2"]);
    assert_eq!(machine.processor.quota_threads, None);
    assert_eq!(machine.memory.total_bytes, Fact::Known(65_754_312 * 1024));
    assert_eq!(machine.memory.group_limit_bytes, None);
    assert_eq!(machine.memory.lock_limit_bytes, Fact::Known(8 << 20));
    assert_eq!(machine.memory.huge_pages, Fact::Known("never".to_string()));
    let swap = machine.memory.swap.known().unwrap();
    assert_eq!(
        (swap[0].name.as_str(), swap[0].used_bytes, swap[0].is_compressed_memory),
        ("/swapfile", 1 << 30, false)
    );
    assert_eq!(machine.system.machine, Fact::Known("ASUS PRIME X570-P".to_string()));
    assert!(!machine.system.is_portable && machine.system.has_iommu && machine.system.container.is_none());
    assert_eq!(machine.system.kernel_version(), Some((6, 1)));
    let sensors = machine.system.sensors.known().unwrap();
    let names: Vec<&str> = sensors.iter().map(|sensor| sensor.name.as_str()).collect();
    assert_eq!(names, ["nvme Composite", "k10temp Tctl"], "a sensor at -62 °C is not connected");
}

#[test]
fn cards_are_told_without_a_driver_library_and_with_it() {
    let recorded = Recorded::of("workstation");
    let machine = recorded.inventory(asked(vec![]));
    let cards = machine.cards.known().unwrap();
    assert_eq!(cards.len(), 2, "bridges and drives are no cards");
    let (nvidia, amd) = (&cards[0], &cards[1]);
    assert_eq!(nvidia.name, Fact::Known("AD102 [GeForce RTX 4090]".to_string()));
    assert_eq!((nvidia.maker, nvidia.driver.clone()), (Maker::Nvidia, Fact::Known("nvidia".to_string())));
    assert!(nvidia.memory_bytes.known().is_none());
    let link = nvidia.link.known().unwrap();
    assert_eq!((link.now, link.awake()), (Lanes { generation: 1, lanes: 4 }, Lanes { generation: 4, lanes: 4 }));
    assert_eq!(amd.memory_bytes, Fact::Known(25_753_026_560));
    assert_eq!((amd.celsius.clone(), amd.watts_default), (Fact::Known(51.0), Some(355.0)));
    let link = amd.link.known().unwrap();
    assert_eq!(link.now, Lanes { generation: 3, lanes: 8 }, "the link is that of the switch on the card");
    assert_eq!(link.slot_max, Some(Lanes { generation: 3, lanes: 8 }));

    let mut with_library = asked(vec![]);
    with_library.nvidia = driver(12_040, vec![]);
    let machine = recorded.inventory(with_library);
    let nvidia = &machine.cards.known().unwrap()[0];
    assert_eq!(nvidia.memory_bytes, Fact::Known(25_757_220_864));
    let slot = nvidia.link.known().unwrap().slot_max;
    assert_eq!(slot, Some(Lanes { generation: 4, lanes: 16 }), "only the files know the slot");
}

#[test]
fn a_folder_leads_to_its_drive_through_partitions_mappings_and_names() {
    let recorded = Recorded::of("workstation");
    let folders = ["/home/me", "/data/runs", "/nas", "/dev/shm/x", "/tank"].map(tried).to_vec();
    let machine = recorded.inventory(asked(folders));
    let kinds: Vec<Kind> = machine.folders.iter().map(|folder| *folder.kind.known().unwrap()).collect();
    assert_eq!(kinds, [Kind::Drive, Kind::Drive, Kind::Network, Kind::Memory, Kind::Drive]);
    let drive = |at: usize| machine.drive_of(&machine.folders[at]);
    let system = drive(0).unwrap();
    assert_eq!((system.name.as_str(), system.bus, system.bytes), ("nvme0n1", Bus::Nvme, 3_907_029_168 * 512));
    assert_eq!(system.model, Fact::Known("Samsung SSD 990 PRO 2TB".to_string()));
    assert_eq!(system.link.unwrap().now, Lanes { generation: 3, lanes: 2 });
    let data = drive(1).unwrap();
    assert!(data.is_encrypted && data.bus == Bus::Mapped && data.made_of == ["sda"]);
    assert_eq!((drive(2), drive(4)), (None, None), "what has no block device says so");
    assert!(machine.folders[4].drive.text(Clone::clone).contains("tank"));

    let laptop = Recorded::of("laptop");
    let machine = laptop.inventory(asked(["/home/me", "/run/media/me/My Disk/a"].map(tried).to_vec()));
    assert_eq!(machine.folders[0].drive, Fact::Known("nvme0n1".to_string()), "btrfs has a number of its own");
    assert_eq!(machine.drive_of(&machine.folders[1]).map(|drive| drive.bus), Some(Bus::Usb));
}

#[test]
fn a_laptop_knows_its_battery_and_not_the_one_of_its_mouse() {
    let recorded = Recorded::of("laptop");
    assert_eq!(recorded.inventory(asked(vec![])).system.power, Fact::Known(Power::Battery));
    recorded.write("/sys/class/power_supply/BAT0/status", b"Charging\n");
    assert!(recorded.inventory(asked(vec![])).system.power.known().is_none());
    recorded.write("/sys/class/power_supply/AC/online", b"1\n");
    assert_eq!(recorded.inventory(asked(vec![])).system.power, Fact::Known(Power::Mains));
}

#[test]
fn a_container_knows_its_limits_and_says_what_it_cannot_see() {
    let recorded = Recorded::of("container");
    let machine = recorded.inventory(asked(vec![tried("/runs")]));
    assert_eq!(machine.memory.group_limit_bytes, Some(32 << 30));
    assert_eq!(machine.memory.usable_bytes(), Some(32 << 30));
    assert_eq!((machine.processor.quota_threads, machine.processor.usable_threads()), (Some(6.0), Some(6)));
    assert_eq!(machine.processor.threads_allowed, Fact::Known(16));
    assert_eq!(machine.system.container.as_deref(), Some("docker"));
    assert!(machine.system.has_call_filter && machine.processor.is_virtual && !machine.memory.may_lock_all);
    assert_eq!(machine.folders[0].kind, Fact::Known(Kind::Layers));
    assert_eq!(machine.cards, Fact::unknown("/sys/bus/pci/devices: not there"));
    assert_eq!(machine.drives, Fact::unknown("/sys/block: not there"));
    assert_eq!(machine.memory.swap, Fact::unknown("/proc/swaps: not there"));
    recorded.write("/proc/self/cgroup", b"5:memory:/job\n4:cpu,cpuacct:/job\n");
    recorded.write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", b"1073741824\n");
    recorded.write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", b"250000\n");
    recorded.write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", b"100000\n");
    let machine = recorded.inventory(asked(vec![]));
    assert_eq!((machine.memory.group_limit_bytes, machine.processor.quota_threads), (Some(1 << 30), Some(2.5)));
}

#[test]
fn a_card_of_a_container_without_a_bus_is_told_by_the_library() {
    let mut with_library = asked(vec![]);
    with_library.nvidia = driver(12_040, vec![]);
    let machine = Recorded::of("container").inventory(with_library);
    let cards = machine.cards.known().unwrap();
    assert_eq!((cards.len(), cards[0].maker), (1, Maker::Nvidia));
}

/// The whole way, at three widths.
fn examine(tree: &Tree) {
    let folders = ["/", "/data", "/run/media/me/My Disk"].map(tried).to_vec();
    let inventory = Inventory::of(tree, asked(folders));
    let rates = planner::rates::Rates::usual(4);
    let findings = findings(&inventory, Some(&rates));
    let report = Report { version: "0", inventory, rates: Fact::Known(rates), findings };
    serde_json::to_string(&report).unwrap();
    for width in [60, 80, 140] {
        show::text(&report, width);
    }
}

#[test]
fn a_machine_without_any_file_is_a_list_of_reasons() {
    examine(&Recorded::empty().tree);
    let machine = Recorded::empty().inventory(asked(vec![tried("/data")]));
    assert!(machine.memory.total_bytes.known().is_none() && machine.drives.known().is_none());
    assert!(
        findings(&machine, None).is_empty(),
        "nothing is known, so nothing is wrong: {:?}",
        findings(&machine, None)
    );
}

#[test]
fn no_content_of_any_file_stops_the_doctor() {
    let endless = "a: b\n".repeat(1 << 18);
    let hostile: [&[u8]; 14] = [
        b"",
        b"\n",
        b"-1",
        b"0",
        b"99999999999999999999999999",
        b"18446744073709551615",
        b"NaN",
        b"-inf",
        b"1e308 GT/s",
        b"0-18446744073709551615,7",
        b"a:b:c - d e\n - \n: : :\n\\040",
        b"\x00\xff\xfe\x1b[2J\x80[x] \xf0\x9f",
        b"Max locked memory -5 x\nCapEff: zz\nCpus_allowed_list: -\nMemTotal: -1 kB\nFilename\n/dev/zram0 p -1 -1 -1\n0::/../../x",
        endless.as_bytes(),
    ];
    for name in ["workstation", "laptop", "container"] {
        for content in hostile {
            let recorded = Recorded::of(name);
            for entry in entries(name) {
                if let Entry::File(path, _) = entry {
                    recorded.write(&path, content);
                }
            }
            examine(&recorded.tree);
        }
    }
}

#[test]
fn each_file_that_is_cut_off_or_a_folder_or_a_loop_of_links_is_survived() {
    let recorded = Recorded::of("workstation");
    for entry in entries("workstation") {
        let Entry::File(path, content) = entry else { continue };
        let place = recorded.place(&path);
        recorded.write(&path, &content.as_bytes()[..content.len() / 2]);
        examine(&recorded.tree);
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        examine(&recorded.tree);
        fs::remove_dir(&place).unwrap();
        symlink(&place, &place).unwrap();
        examine(&recorded.tree);
        fs::remove_file(&place).unwrap();
        recorded.write(&path, content.as_bytes());
    }
}
