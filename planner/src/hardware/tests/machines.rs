//! Facts about described machines: counts, assumptions, links, memory, rates.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::machine::CudaCard;
use crate::rates::RatesOrigin;

fn asked(gpu: &str) -> Asked {
    Asked { gpu: Some(gpu.to_string()), ..Asked::default() }
}

fn described(gpu: &str, cpu: &str, nvme: &[&str]) -> Described {
    let nvme = nvme.iter().map(|name| name.to_string()).collect();
    let cpu = (!cpu.is_empty()).then(|| cpu.to_string());
    catalogue().describe(&Asked { gpu: Some(gpu.to_string()), ram: Some(64_000_000_000), nvme, cpu }).unwrap()
}

fn refusal(asked: Asked) -> String {
    let message = catalogue().describe(&asked).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.len() < 200, "{message}");
    message
}

fn near(value: f64, expected: f64) {
    assert!((value / expected - 1.0).abs() < 0.01, "{value} is not {expected}");
}

#[test]
fn counts_are_read_behind_any_name() {
    let all = catalogue();
    for (text, name, count) in [
        ("rtx-a4500x2", "rtx-a4500", 2),
        ("rtx-4090x4", "rtx-4090", 4),
        ("RTX 4090 x 2", "rtx-4090", 2),
        ("mi250x", "mi250x", 1),
        ("mi250xx2", "mi250x", 2),
        ("mi250x2", "mi250", 2),
        ("rtx-4090", "rtx-4090", 1),
        ("rx-7900-xtxx2", "rx-7900-xtx", 2),
        ("4090*2", "rtx-4090", 2),
    ] {
        let (gpu, cards) = all.describe(&asked(text)).unwrap().gpu.unwrap();
        assert_eq!((gpu.name.as_str(), cards), (name, count), "{text}");
    }
    let drives = described("none", "", &["990-pro-2tbx2", "sn850x-2tb"]).ssds;
    assert_eq!(
        drives.iter().map(|ssd| ssd.name.as_str()).collect::<Vec<_>>(),
        ["990-pro-2tb", "990-pro-2tb", "sn850x-2tb"]
    );
}

#[test]
fn absurd_counts_and_sizes_get_one_line_with_the_range() {
    assert_eq!(refusal(asked("rtx-4090x0")), "gpu \"rtx-4090x0\": 0 of them; expected 1 to 16, as in rtx-4090x2");
    assert!(refusal(asked("rtx-4090x1000")).contains("1000 of them; expected 1 to 16"));
    assert!(refusal(asked("rtx-4090x-2")).contains("-2 of them"));
    assert!(refusal(asked("rtx-4090x99999999999999999999")).contains("expected 1 to 16"));
    for ram in [0, 1000, 10_000_000_000_000_000] {
        let message = refusal(Asked { ram: Some(ram), ..Asked::default() });
        assert_eq!(message, format!("ram of {ram} bytes: expected 1.00 GB to 64.0 TB, such as 64GB"));
    }
    for size in ["1GB", "0TB", "10000TB", "-2TB"] {
        let message = refusal(Asked { nvme: vec![size.to_string()], ..Asked::default() });
        assert!(message.contains("tune hardware list ssd"), "{message}");
    }
    let many = vec!["2TBx32".to_string(), "2TB".to_string()];
    assert!(refusal(Asked { nvme: many, ..Asked::default() }).contains("33 of them; expected 1 to 32"));
}

#[test]
fn an_unknown_card_with_a_count_gets_the_nearest_names_of_the_card() {
    let message = refusal(asked("rtx-4095x2"));
    assert!(message.starts_with("unknown gpu \"rtx-4095\"; nearest: rtx-40"), "{message}");
    let message = refusal(asked("rtx-9999"));
    assert!(message.starts_with("unknown gpu \"rtx-9999\"; nearest: rtx-"), "{message}");
    assert!(refusal(asked(&"x".repeat(500))).contains("..."));
}

#[test]
fn what_was_not_said_is_assumed_and_noted() {
    let machine = catalogue().describe(&asked("rtx-4090")).unwrap();
    assert_eq!(machine.ram_bytes, 64_000_000_000);
    assert!(machine.notes.iter().any(|note| note == "no --ram: 64.0 GB assumed"), "{:?}", machine.notes);
    assert!(machine.notes.iter().any(|note| note.starts_with("no --cpu: a usual desktop")));
    assert!(described("rtx-4090", "epyc-7742", &[]).notes.is_empty());
    assert!(described("none", "epyc-7742", &["2TB"]).notes[0].starts_with("drives given by size"));
    assert!(
        described("rx-7900-xtx", "epyc-7742", &[]).notes[0]
            .contains("no build of this program uses cards of this maker")
    );
}

#[test]
fn memory_beyond_the_platform_is_a_note() {
    let all = catalogue();
    let with =
        |ram| all.describe(&Asked { ram: Some(ram), cpu: Some("ryzen-9-5950x".into()), ..Asked::default() }).unwrap();
    assert!(with(128_000_000_000).notes.is_empty() && with(128 << 30).notes.is_empty());
    assert_eq!(with(256_000_000_000).notes, ["Ryzen 9 5950X (AM4) takes at most 128 GB of memory, not 256 GB"]);
}

#[test]
fn a_unified_machine_computes_in_its_own_memory_and_takes_no_parts() {
    let all = catalogue();
    let spark = all.describe(&asked("dgx-spark")).unwrap();
    let machine = spark.machine(&[]);
    assert!(machine.cuda.is_empty() && machine.cards == 1 && machine.fast_bf16 && machine.cores == 20);
    assert!((115e9..130e9).contains(&(machine.memory_available_bytes as f64)), "{}", machine.memory_available_bytes);
    assert_eq!(machine.rates.host_link_bytes_per_second, None);
    near(machine.rates.device_bytes_per_second, 273e9 * 0.85);
    let mac = all.describe(&asked("m4-max-64gb")).unwrap().machine(&[]);
    assert!(mac.memory_available_bytes <= mac.memory_total_bytes / 4 * 3);
    let smaller = Asked { ram: Some(32_000_000_000), ..asked("strix halo") };
    assert_eq!(all.describe(&smaller).unwrap().ram_bytes, 32_000_000_000);
    assert!(refusal(asked("dgx-sparkx2")).starts_with("dgx-spark is a whole machine: 2 of them"));
    assert!(
        refusal(Asked { cpu: Some("epyc-7742".into()), ..asked("dgx-spark") }).contains("leave --cpu epyc-7742 out")
    );
    assert!(
        refusal(Asked { ram: Some(256_000_000_000), ..asked("dgx-spark") })
            .contains("it has 137 GB of memory, not 256 GB")
    );
}

#[test]
fn memory_is_what_a_fresh_system_leaves_and_cards_what_a_process_gets() {
    let machine = described("rtx-a4500x2", "threadripper-3960x", &[]).machine(&[]);
    assert_eq!((machine.memory_total_bytes, machine.memory_available_bytes), (63_000_000_000, 61_000_000_000));
    let card = CudaCard { available_bytes: 20 * (1 << 30) - 500_000_000, fast_bf16: true };
    assert_eq!(machine.cuda, [card; 2]);
    assert_eq!((machine.cards, machine.cores, machine.fast_bf16), (2, 24, false));
    let tiny = catalogue().describe(&Asked { ram: Some(1_000_000_000), ..Asked::default() }).unwrap().machine(&[]);
    assert!(tiny.memory_available_bytes > 700_000_000);
    assert!(described("none", "epyc-9354", &[]).machine(&[]).fast_bf16);
}

#[test]
fn drives_share_their_sustained_rates_over_the_paths() {
    let paths: Vec<PathBuf> = ["/a", "/b"].map(PathBuf::from).to_vec();
    let machine = described("rtx-4090", "epyc-7742", &["990-pro-2tbx2"]).machine(&paths);
    assert_eq!(machine.io.len(), 2);
    let io = &machine.io[0];
    assert_eq!((io.path.to_str().unwrap(), io.chunk_bytes, io.queue_depth), ("/a", 4 << 20, 32));
    assert_eq!((io.read_bytes_per_second, io.write_bytes_per_second), (7_000_000_000, 1_400_000_000));
    let nvme = machine.rates.nvme.unwrap();
    assert_eq!((nvme.read_bytes_per_second, nvme.write_bytes_per_second), (14e9, 2.8e9));
    assert!(described("rtx-4090", "", &[]).machine(&paths).io.is_empty());
    assert!(described("rtx-4090", "", &["2TB"]).machine(&[]).io.is_empty());
}

#[test]
fn links_are_those_that_were_measured() {
    for (gpu, cpu, gigabytes) in [
        ("rtx-2080-ti", "epyc-7742", 12.0),
        ("rtx-4060", "epyc-7742", 12.5),
        ("rtx-4090", "epyc-7742", 25.0),
        ("rtx-4090", "xeon-e5-2690-v4", 12.0),
        ("rtx-5060", "epyc-9354", 26.4),
        ("rtx-5090", "epyc-9354", 53.0),
    ] {
        near(described(gpu, cpu, &[]).machine(&[]).rates.host_link_bytes_per_second.unwrap(), gigabytes * 1e9);
    }
}

#[test]
fn two_cards_on_a_desktop_get_eight_lanes_each_and_drives_go_behind_the_chipset() {
    let desktop = described("rtx-4090x2", "ryzen-9-5950x", &["990-pro-2tbx3"]);
    let link = card_link(&desktop).unwrap();
    assert_eq!((link.lanes, link.lanes_asked, link.generation), (8, 16, 4));
    near(desktop.machine(&[]).rates.host_link_bytes_per_second.unwrap(), 12.5e9);
    // One drive on the processor's four lanes, two behind the chipset.
    near(desktop.machine(&[]).rates.nvme.unwrap().read_bytes_per_second, 7e9 + 7e9);
    assert_eq!(card_link(&described("rtx-4090x2", "threadripper-3960x", &["990-pro-2tbx3"])).unwrap().lanes, 16);
    assert_eq!(card_link(&described("rtx-4090x8", "epyc-7742", &["990-pro-2tb"])).unwrap().lanes, 8);
}

#[test]
fn products_are_what_was_measured_or_the_share_of_their_class() {
    let bf16 = |gpu: &str| described(gpu, "epyc-7742", &[]).machine(&[]).rates.bf16.matmul_flops / 1e12;
    let f32 = |gpu: &str| described(gpu, "epyc-7742", &[]).machine(&[]).rates.f32.matmul_flops / 1e12;
    for (gpu, tflops) in [
        ("rtx-4090", 172.0),
        ("rtx-5090", 209.5),
        ("rtx-a6000", 95.0),
        ("rtx-a4500", 94.6 * 0.6),
        ("a100-80gb-sxm", 271.0),
        ("h100-sxm", 794.0),
        ("h100-pcie", 756.0 * 0.8),
        ("mi300x", 668.0),
        ("rx-7900-xtx", 61.5),
    ] {
        near(bf16(gpu), tflops);
    }
    near(f32("rtx-3090"), 35.6);
    near(f32("rtx-2080-ti"), 13.4);
    near(bf16("rtx-2080-ti"), 13.4);
    near(f32("mi300x"), 81.7 * 0.5);
}

#[test]
fn cards_are_joined_by_their_own_link_or_through_the_host() {
    let link = |gpu: &str| described(gpu, "epyc-7742", &[]).machine(&[]).rates.card_link_bytes_per_second;
    assert_eq!(link("rtx-3090"), None);
    near(link("rtx-3090x2").unwrap(), 45e9);
    near(link("rtx-4090x2").unwrap(), 17.5e9);
}

#[test]
fn without_a_card_the_processor_computes_and_the_band_is_wider() {
    let cpu = described("none", "epyc-9354", &[]).machine(&[]).rates;
    let card = described("rtx-4090", "epyc-9354", &[]).machine(&[]).rates;
    assert_eq!((cpu.origin, cpu.host_link_bytes_per_second), (RatesOrigin::Catalogue, None));
    assert!(cpu.bf16.matmul_flops > cpu.f32.matmul_flops);
    near(cpu.dram_bytes_per_second, 460.8e9 * 0.8);
    assert!(cpu.band[0] <= card.band[0] && cpu.band[1] >= card.band[1]);
    let old = described("none", "ryzen-5-5600", &[]).machine(&[]).rates;
    assert!(old.bf16.matmul_flops < old.f32.matmul_flops);
}

#[test]
fn every_card_on_every_platform_has_rates_that_are_numbers_above_zero() {
    let all = catalogue();
    for gpu in &all.gpus {
        for cpu in &all.cpus {
            let cpu = (!gpu.unified).then(|| cpu.clone());
            let one = Described {
                gpu: Some((gpu.clone(), 1)),
                cpu,
                ram_bytes: 64 << 30,
                ssds: vec![all.ssds[0].clone()],
                notes: vec![],
            };
            let rates = one.machine(&[]).rates;
            let nvme = rates.nvme.unwrap();
            let values = [
                rates.f32.matmul_flops,
                rates.bf16.attention_flops,
                rates.bf16.vector_bytes_per_second,
                rates.device_bytes_per_second,
                rates.dram_bytes_per_second,
                rates.host_link_bytes_per_second.unwrap_or(1.0),
                nvme.read_bytes_per_second,
                nvme.write_bytes_per_second,
            ];
            assert!(values.iter().all(|value| value.is_finite() && *value >= 1.0), "{}: {values:?}", gpu.name);
            assert!((0.0..1.0).contains(&rates.band[0]) && rates.band[1] >= 1.0);
        }
    }
}
