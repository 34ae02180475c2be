//! Each rule finds what it is for, with its numbers, and keeps quiet otherwise.
#![allow(clippy::unwrap_used)]

use planner::rates::{Rates, RatesOrigin};

use super::super::cards::Maker;
use super::super::fact::Fact;
use super::super::folders::{Kind, Room, Tried};
use super::super::inventory::Inventory;
use super::super::memory::Swap;
use super::super::modules::Module;
use super::super::testing::{Recorded, asked, driver, profile, tried};
use super::{Finding, Severity, findings};
use kernels::devices::Throttle;

/// The workstation with nothing wrong: what a test then breaks is what is found.
fn healthy() -> Inventory {
    let mut with_library = asked(vec![tried("/home/me")]);
    with_library.nvidia = driver(13_000, vec![]);
    let mut machine = Recorded::of("workstation").inventory(with_library);
    for card in cards(&mut machine) {
        card.link = Fact::unknown("not in this test");
        card.watts_cap = Fact::Known(450.0);
    }
    cards(&mut machine).retain(|card| card.maker == Maker::Nvidia);
    machine.drives = Fact::unknown("not in this test");
    machine.memory.swap = Fact::Known(vec![]);
    machine.memory.huge_pages = Fact::Known("madvise".to_string());
    machine.processor.governor = Fact::Known("performance".to_string());
    machine.processor.threads = Fact::Known(6);
    machine.processor.threads_allowed = Fact::Known(6);
    machine.processor.instructions.push("AVX512-BF16".to_string());
    machine.system.sensors = Fact::Known(vec![]);
    machine
}

fn cards(machine: &mut Inventory) -> &mut Vec<super::super::cards::Card> {
    match &mut machine.cards {
        Fact::Known(cards) => cards,
        Fact::Unknown { unknown } => panic!("{unknown}"),
    }
}

/// The only finding of a machine, which must have this code.
fn only(machine: &Inventory, code: &str) -> Finding {
    only_with(machine, None, code)
}

fn only_with(machine: &Inventory, rates: Option<&Rates>, code: &str) -> Finding {
    let found = findings(machine, rates);
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [code], "{found:#?}");
    found[0].clone()
}

/// The finding with this code among others.
fn one(found: &[Finding], code: &str) -> Finding {
    let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
    assert_eq!(codes.iter().filter(|each| **each == code).count(), 1, "{code} in {codes:?}");
    found.iter().find(|finding| finding.code == code).unwrap().clone()
}

fn recorded(name: &str, folders: Vec<Tried>) -> Inventory {
    Recorded::of(name).inventory(asked(folders))
}

fn measured() -> Rates {
    Rates { origin: RatesOrigin::Measured, dram_bytes_per_second: 40e9, bf16: Rates::usual(6).f32, ..Rates::usual(6) }
}

#[test]
fn a_machine_with_nothing_wrong_has_no_finding() {
    assert_eq!(findings(&healthy(), None), []);
    assert_eq!(findings(&healthy(), Some(&measured())), []);
}

#[test]
fn a_card_on_four_of_sixteen_lanes_says_what_that_costs() {
    let found = findings(&recorded("workstation", vec![]), None);
    let lanes: Vec<&Finding> = found.iter().filter(|finding| finding.code == "card_lanes").collect();
    assert_eq!(lanes.len(), 2, "{found:#?}");
    assert_eq!(lanes[0].symptom, "AD102 [GeForce RTX 4090] on x4 lanes: copies reach 6 GB/s, x16 would reach 25");
    assert!(lanes[0].constraint.contains("contacts") && lanes[0].fix.contains("reseat"), "{:?}", lanes[0]);
    assert!(lanes[1].symptom.contains("Radeon") && lanes[1].constraint == "the slot has x8", "{:?}", lanes[1]);
    assert!(lanes[1].fix.contains("move the card"));
}

#[test]
fn a_link_that_sleeps_is_no_finding_but_a_slot_of_an_older_generation_is() {
    let mut machine = healthy();
    let mut link = *recorded("workstation", vec![]).cards.known().unwrap()[0].link.known().unwrap();
    link.now.lanes = 16;
    cards(&mut machine)[0].link = Fact::Known(link);
    assert_eq!(link.now.generation, 1);
    assert_eq!(findings(&machine, None), []);
    link.slot_max = Some(super::super::link::Lanes { generation: 3, lanes: 16 });
    cards(&mut machine)[0].link = Fact::Known(link);
    assert_eq!(
        only(&machine, "card_generation").symptom,
        "NVIDIA GeForce RTX 4090: copies reach 13 GB/s, the card could do 25"
    );
}

#[test]
fn a_laptop_is_not_told_to_move_its_card() {
    let lanes = one(&findings(&recorded("laptop", vec![]), None), "card_lanes");
    assert!(lanes.constraint.contains("laptop's board connects x8") && lanes.fix.contains("qlora"), "{lanes:?}");
}

#[test]
fn cards_without_a_computing_driver_stop() {
    let found = findings(&recorded("laptop", vec![]), None);
    assert!(one(&found, "card_driver").constraint.contains("nouveau"));
    assert_eq!(found[0].severity, Severity::Stops, "the worst comes first");
    let mut machine = healthy();
    cards(&mut machine)[0].driver = Fact::unknown("none");
    assert!(only(&machine, "card_driver").fix.contains("mokutil"));
    cards(&mut machine)[0].driver = Fact::Known("vfio-pci".to_string());
    assert!(only(&machine, "card_given_away").constraint.contains("virtual machine"));
    cards(&mut machine)[0].driver = Fact::Known("nvidia".to_string());
    machine.built_for_cuda = false;
    assert!(only(&machine, "card_build").fix.contains("--features cuda"));
    machine.nvidia = Fact::unknown("no NVIDIA driver library (libnvidia-ml.so.1)");
    assert!(only(&machine, "card_library").fix.contains("/proc/driver/nvidia/version"));
    machine.system.container = Some("docker".to_string());
    assert!(only(&machine, "card_library").fix.contains("--gpus all"));
}

#[test]
fn a_card_that_this_program_cannot_use_is_noted() {
    let found = findings(&recorded("workstation", vec![]), None);
    assert!(one(&found, "card_maker").symptom.contains("Radeon"));
}

#[test]
fn heat_and_power_of_a_card_are_told_with_their_numbers() {
    let throttled = |reasons: Vec<Throttle>| {
        let mut machine = healthy();
        cards(&mut machine)[0].throttle = Fact::Known(reasons);
        machine
    };
    assert!(only(&throttled(vec![Throttle::Heat]), "card_heat").symptom.contains("at 71 °C lowers its clocks"));
    assert!(only(&throttled(vec![Throttle::PowerBrake]), "card_power_brake").constraint.contains("power supply"));
    assert!(only(&throttled(vec![Throttle::Clocks]), "card_clocks").fix.contains("-rac"));
    assert_eq!(only(&throttled(vec![Throttle::PowerCap]), "card_at_cap").severity, Severity::Note);
    let mut machine = healthy();
    cards(&mut machine)[0].celsius = Fact::Known(88.0);
    only(&machine, "card_heat");
    let mut machine = healthy();
    cards(&mut machine)[0].watts_cap = Fact::Known(300.0);
    let cap = only(&machine, "card_power_cap");
    assert!(
        cap.symptom.contains("300 W of 450 W") && cap.fix.contains("nvidia-smi -i 0000:0a:00.0 -pl 450"),
        "{cap:?}"
    );
    let amd = findings(&recorded("workstation", vec![]), None);
    assert!(one(&amd, "card_power_cap").fix.contains("355000000"), "AMD's files count millionths");
}

#[test]
fn memory_of_a_card_that_others_hold_is_told() {
    let mut machine = healthy();
    cards(&mut machine)[0].memory_free_bytes = Fact::Known(10_000_000_000);
    assert!(only(&machine, "card_memory_taken").symptom.contains("10.0 GB of 25.8 GB free"));
}

#[test]
fn an_old_driver_stops_and_one_of_cuda_12_is_noted() {
    let mut machine = healthy();
    machine.nvidia = driver(11_040, vec![]);
    let old = only(&machine, "nvidia_driver_old");
    assert!(old.symptom.contains("550.54.14 runs CUDA 11.4") && old.fix.contains("525.60"), "{old:?}");
    machine.nvidia = driver(12_040, vec![]);
    assert_eq!(only(&machine, "nvidia_driver_cuda_12").severity, Severity::Note);
}

#[test]
fn copies_slower_than_their_link_and_several_cards_behind_an_iommu_are_told() {
    let mut machine = healthy();
    let mut link = *recorded("workstation", vec![]).cards.known().unwrap()[0].link.known().unwrap();
    link.now.lanes = 16;
    cards(&mut machine)[0].link = Fact::Known(link);
    let rates = |copies: f64| Rates { host_link_bytes_per_second: Some(copies), ..measured() };
    assert_eq!(findings(&machine, Some(&rates(24e9))), []);
    let slow = only_with(&machine, Some(&rates(5e9)), "card_copies");
    assert!(slow.symptom.contains("5.0 GB/s, its link should do 25"), "{slow:?}");
    let mut machine = healthy();
    let second = cards(&mut machine)[0].clone();
    cards(&mut machine).push(second);
    assert!(only(&machine, "card_peers").fix.contains("iommu=pt"));
    machine.system.has_iommu = false;
    assert_eq!(findings(&machine, None), []);
}

#[test]
fn a_rotational_disk_is_named_with_what_was_measured() {
    let mut folder = tried("/data/runs");
    folder.profile = profile(190_000_000, 180_000_000);
    let found = findings(&recorded("workstation", vec![folder]), None);
    let disk = one(&found, "drive_rotational");
    assert_eq!(disk.symptom, "disk dm-0 (sda) writes at 180 MB/s");
    assert_eq!((disk.constraint.as_str(), disk.severity), ("it is a rotational disk", Severity::Slows));
    assert!(disk.fix.contains("put offload.nvme on an SSD"));
    assert!(one(&found, "drive_encrypted").symptom.contains("/data/runs"));
}

#[test]
fn a_drive_in_a_slow_slot_and_one_that_is_slow_for_no_known_reason_are_told() {
    let found = findings(&recorded("workstation", vec![tried("/home/me")]), None);
    let link = one(&found, "drive_link");
    assert_eq!(link.symptom, "disk nvme0n1 moves 1.6 GB/s at most, it could do 6.3");
    assert!(link.constraint.contains("Gen3 x2") && link.constraint.contains("Gen4 x4"));
    let mut machine = healthy();
    machine.folders[0].profile = profile(3_000_000_000, 120_000_000);
    assert!(only(&machine, "drive_slow_writes").symptom.contains("120 MB/s"));
    machine.folders[0].profile = profile(3_000_000_000, 2_000_000_000);
    assert_eq!(findings(&machine, None), []);
}

#[test]
fn plugged_drives_and_memory_cards_are_no_place_for_training() {
    let mut closed = tried("/card");
    closed.engine = Fact::unknown("/card: Read-only file system");
    let folders = vec![tried("/run/media/me/My Disk"), closed];
    let found = findings(&recorded("laptop", folders), None);
    assert!(one(&found, "drive_usb").symptom.contains("sdb"));
    assert!(one(&found, "drive_card").symptom.contains("mmcblk0"));
    assert_eq!(one(&found, "folder_read_only").severity, Severity::Stops);
}

#[test]
fn file_systems_that_are_no_drive_are_told_apart() {
    let workstation = |path: &str| findings(&recorded("workstation", vec![tried(path)]), None);
    assert!(one(&workstation("/dev/shm"), "folder_in_memory").constraint.contains("tmpfs"));
    assert!(one(&workstation("/nas"), "folder_network").constraint.contains("nfs4"));
    assert!(one(&workstation("/tank"), "folder_copies_on_write").fix.contains("recordsize=1M"));
    let laptop = findings(&recorded("laptop", vec![tried("/home/me")]), None);
    assert!(one(&laptop, "folder_copies_on_write").fix.contains("chattr +C"));
    let container = |path: &str| findings(&recorded("container", vec![tried(path)]), None);
    assert!(one(&container("/runs"), "folder_layers").fix.contains("docker run -v"));
    assert!(one(&container("/scratch"), "folder_network").constraint.contains("virtiofs"));
    let mut machine = healthy();
    machine.folders[0].kind = Fact::Known(Kind::Program);
    assert!(only(&machine, "folder_program").constraint.contains("user space"));
}

#[test]
fn a_folder_that_is_closed_or_has_little_room_is_told() {
    let mut machine = healthy();
    machine.folders[0].engine = Fact::unknown("/home/me: Permission denied");
    let closed = only(&machine, "folder_closed");
    assert_eq!((closed.severity, closed.constraint.as_str()), (Severity::Stops, "/home/me: Permission denied"));
    let mut machine = healthy();
    machine.folders[0].room = Fact::Known(Room { total_bytes: 500_000_000_000, free_bytes: 81_000_000_000 });
    assert!(
        only(&machine, "folder_little_room")
            .symptom
            .contains("81.0 GB free: full training's state fits for models up to 4B")
    );
    machine.folders[0].room = Fact::Known(Room { total_bytes: 500_000_000_000, free_bytes: 1_000_000_000 });
    let found = findings(&machine, None);
    assert!(one(&found, "folder_little_room").symptom.contains("no usual model"));
    assert!(one(&found, "drive_nearly_full").fix.contains("fstrim"));
}

#[test]
fn a_drive_speaks_once_for_all_its_folders() {
    let found = findings(&recorded("workstation", vec![tried("/home/me"), tried("/home/you")]), None);
    one(&found, "drive_link");
}

fn with_engine(change: impl FnOnce(&mut super::super::folders::Engine)) -> Inventory {
    let mut machine = healthy();
    match &mut machine.folders[0].engine {
        Fact::Known(engine) => change(engine),
        Fact::Unknown { unknown } => panic!("{unknown}"),
    }
    machine
}

#[test]
fn o_direct_refused_is_told_with_the_kernels_reason() {
    let machine = with_engine(|engine| {
        engine.is_direct = false;
        engine.notes =
            vec!["/x: the page cache cannot be passed by (Invalid argument (os error 22)); more".to_string()];
    });
    assert!(only(&machine, "folder_page_cache").constraint.contains("ext4 refuses O_DIRECT: Invalid argument"));
}

#[test]
fn io_uring_refused_names_the_switch_the_kernel_or_the_container() {
    let refused = || {
        with_engine(|engine| {
            engine.kind = "threads".to_string();
            engine.why = "threads: 4 of them; io_uring refused: Operation not permitted".to_string();
            engine.has_registered_buffers = false;
        })
    };
    let mut machine = refused();
    machine.system.os = "linux".to_string();
    assert!(only(&machine, "io_uring_refused").constraint.contains("Operation not permitted"));
    machine.system.has_call_filter = true;
    assert!(only(&machine, "io_uring_refused").fix.contains("seccomp"));
    machine.system.kernel = Fact::Known("4.19.0-26-amd64".to_string());
    assert!(only(&machine, "io_uring_refused").constraint.contains("kernel 4.19"));
    machine.system.io_uring_disabled = Some(2);
    assert!(only(&machine, "io_uring_refused").fix.contains("sysctl kernel.io_uring_disabled=0"));
    machine.system.os = "macos".to_string();
    assert_eq!(findings(&machine, None), []);
}

#[test]
fn buffers_that_may_not_be_locked_are_told_with_both_numbers() {
    let mut machine = with_engine(|engine| engine.has_registered_buffers = false);
    let limit = only(&machine, "lock_limit");
    assert!(limit.constraint.contains("8.39 MB may be locked, 37.7 MB are needed"), "{limit:?}");
    assert!(limit.fix.contains("ulimit -l"));
    machine.memory.may_lock_all = true;
    assert_eq!(findings(&machine, None), []);
}

#[test]
fn memory_that_is_limited_taken_or_swapped_is_told() {
    let found = findings(&recorded("container", vec![]), None);
    assert!(one(&found, "memory_limit").symptom.contains("34.4 GB of 134 GB"));
    assert!(one(&found, "memory_limit").fix.contains("docker run --memory=125g"));
    let mut machine = healthy();
    machine.memory.group_limit_bytes = Some(1 << 33);
    assert!(only(&machine, "memory_limit").fix.contains("systemd-run"));
    assert!(one(&findings(&recorded("laptop", vec![]), None), "memory_taken").symptom.contains("4.10 GB of 16.4 GB"));
    assert!(one(&findings(&recorded("laptop", vec![]), None), "swap_compressed").constraint.contains("zram"));
    let mut machine = healthy();
    let swap = Swap { name: "/swapfile".to_string(), bytes: 8 << 30, used_bytes: 1 << 30, is_compressed_memory: false };
    machine.memory.swap = Fact::Known(vec![swap]);
    assert!(only(&machine, "swap_on").symptom.contains("8.59 GB of swap, 1.07 GB used"));
}

#[test]
fn memory_that_moves_too_few_bytes_is_told() {
    let mut machine = healthy();
    machine.memory.huge_pages = Fact::Known("never".to_string());
    assert!(only(&machine, "huge_pages_off").fix.contains("echo madvise"));
    let mut machine = healthy();
    let module = Module { bytes: 16 << 30, rated_mts: Some(3600), running_mts: Some(2133) };
    machine.memory.modules = Fact::Known(vec![module.clone(), module.clone()]);
    assert!(only(&machine, "memory_speed").symptom.contains("runs at 2133 MT/s, its modules can 3600"));
    machine.memory.modules = Fact::Known(vec![Module { running_mts: Some(3600), ..module }]);
    assert!(only(&machine, "memory_one_module").fix.contains("second module"));
    let machine = healthy();
    let slow = Rates { dram_bytes_per_second: 14e9, ..measured() };
    assert!(
        only_with(&machine, Some(&slow), "memory_slow")
            .symptom
            .contains("14.0 GB/s: AdamW on 1B parameters takes 2.0 s")
    );
}

#[test]
fn instructions_that_are_missing_are_told_and_a_measurement_wins() {
    let mut machine = healthy();
    machine.processor.architecture = "x86_64".to_string();
    machine.processor.instructions.clear();
    assert_eq!(only(&machine, "no_avx2").severity, Severity::Slows);
    machine.processor.is_virtual = true;
    assert!(only(&machine, "no_avx2").fix.contains("-cpu host"));
    machine.processor.instructions = vec!["AVX2".to_string()];
    assert!(only(&machine, "bf16_missing").constraint.contains("neither AVX-512"));
    machine.processor.instructions.push("AVX-512".to_string());
    assert!(only(&machine, "bf16_missing").constraint.contains("AVX-512 but no bf16"));
    assert_eq!(findings(&machine, Some(&measured())), [], "measured: as fast as f32");
    let slow = Rates { bf16: Rates::usual(6).bf16, ..measured() };
    assert!(only_with(&machine, Some(&slow), "bf16_slow").symptom.contains("bf16 run at 240 GFLOP/s, in f32 at 300"));
}

#[test]
fn threads_that_may_not_be_used_are_told() {
    let found = findings(&recorded("container", vec![]), None);
    assert!(one(&found, "threads_not_allowed").symptom.contains("16 of 64 threads"));
    assert!(one(&found, "threads_quota").symptom.contains("6.0 of 16 threads"));
    let workstation = findings(&recorded("workstation", vec![]), None);
    assert!(one(&workstation, "threads_share_cores").symptom.contains("12 threads on 6 cores"));
    let mut machine = healthy();
    machine.processor.numa_nodes = Fact::Known(2);
    assert!(only(&machine, "numa_nodes").fix.contains("numactl --interleave=all"));
}

#[test]
fn clocks_heat_and_power_of_the_processor_are_told() {
    let workstation = findings(&recorded("workstation", vec![]), None);
    assert!(one(&workstation, "governor_powersave").constraint.contains("acpi-cpufreq"));
    assert_eq!(one(&workstation, "part_hot").symptom, "k10temp Tctl is at 93 °C, its limit is 95");
    let laptop = findings(&recorded("laptop", vec![]), None);
    assert!(
        !laptop.iter().any(|finding| finding.code == "governor_powersave"),
        "intel_pstate's powersave is the usual mode"
    );
    assert!(one(&laptop, "clock_limit").symptom.contains("2100 of 4700 MHz"));
    assert!(one(&laptop, "processor_was_hot").symptom.contains("42 times"));
    assert!(one(&laptop, "on_battery").fix.contains("plug it in"));
}
