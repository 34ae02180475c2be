//! Facts about the catalogue: what it holds, how names are read, what is refused with which words.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::names::squeezed;
use super::*;

mod machines;

fn catalogue() -> Catalogue {
    Catalogue::built_in()
}

/// A user's file with one card; `line` is added to it or replaces the line of the same key.
fn card_with(line: &str) -> String {
    let mut keys: BTreeMap<&str, &str> = BTreeMap::from([
        ("name", "\"my-card\""),
        ("title", "\"My Card\""),
        ("vendor", "\"nvidia\""),
        ("memory_gib", "24"),
        ("bandwidth_gb", "900"),
        ("fp32_tflops", "35"),
        ("pcie_generation", "4"),
        ("pcie_lanes", "16"),
        ("watts", "300"),
    ]);
    if let Some((key, value)) = line.split_once(" = ") {
        keys.insert(key, value);
    }
    let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("# mine\n[[gpu]]\n{}\n", lines.join("\n"))
}

fn refused(text: &str) -> String {
    let mut all = catalogue();
    let before = all.clone();
    let message = all.add(text, "mine.toml").unwrap_err().to_string();
    assert_eq!(all, before, "a refused file adds nothing");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn there_are_at_least_45_cards_8_unified_machines_15_processors_and_20_drives() {
    let all = catalogue();
    let unified = all.gpus.iter().filter(|gpu| gpu.unified).count();
    assert!(all.gpus.len() - unified >= 45, "{}", all.gpus.len() - unified);
    assert!(
        unified >= 8 && all.cpus.len() >= 15 && all.ssds.len() >= 20,
        "{unified} {} {}",
        all.cpus.len(),
        all.ssds.len()
    );
}

#[test]
fn every_kind_of_card_that_people_own_or_rent_is_there() {
    let all = catalogue();
    let names = "gtx-1080-ti rtx-2060 rtx-2070-super rtx-2080-ti titan-rtx rtx-3060-12gb rtx-3060-ti rtx-3070 rtx-3080-10gb rtx-3080-12gb \
        rtx-3080-ti rtx-3090 rtx-3090-ti rtx-4060 rtx-4060-ti-16gb rtx-4070 rtx-4070-super rtx-4070-ti rtx-4070-ti-super rtx-4080 \
        rtx-4080-super rtx-4090 rtx-5060 rtx-5060-ti-16gb rtx-5070 rtx-5070-ti rtx-5080 rtx-5090 rtx-a2000-6gb rtx-a2000-12gb rtx-a4000 \
        rtx-a4500 rtx-a5000 rtx-a5500 rtx-a6000 rtx-2000-ada rtx-4000-ada rtx-4500-ada rtx-5000-ada rtx-6000-ada rtx-pro-4000-blackwell \
        rtx-pro-4500-blackwell rtx-pro-5000-blackwell rtx-pro-6000-blackwell rtx-pro-6000-blackwell-max-q t4 v100-sxm2-32gb \
        v100-pcie-32gb a10 a10g a30 a40 a100-40gb-pcie a100-40gb-sxm a100-80gb-pcie a100-80gb-sxm l4 l40 l40s h100-pcie h100-nvl h100-sxm \
        h200-nvl h200-sxm b200 mi210 mi250 mi250x mi300x rx-7900-xt rx-7900-xtx radeon-pro-w7900 rx-9070-xt arc-a770-16gb arc-b580 \
        dgx-spark ryzen-ai-max-395-128gb m1-max-64gb m2-ultra-192gb m3-max-128gb m4-pro-64gb m4-max-128gb m3-ultra-512gb";
    for name in names.split_whitespace() {
        assert!(all.gpus.iter().any(|gpu| gpu.name == name), "{name}");
    }
}

#[test]
fn no_two_parts_of_a_kind_answer_to_the_same_name() {
    fn unique<'a>(entries: impl Iterator<Item = (&'a str, &'a str, &'a [String])>) {
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for (name, title, aliases) in entries {
            for key in [name, title].into_iter().chain(aliases.iter().map(String::as_str)) {
                let owner = owners.entry(squeezed(key)).or_insert(name);
                assert_eq!(*owner, name, "{key}");
            }
        }
    }
    let all = catalogue();
    unique(all.gpus.iter().map(|gpu| (gpu.name.as_str(), gpu.title.as_str(), &gpu.aliases[..])));
    unique(all.cpus.iter().map(|cpu| (cpu.name.as_str(), cpu.title.as_str(), &cpu.aliases[..])));
    unique(all.ssds.iter().map(|ssd| (ssd.name.as_str(), ssd.title.as_str(), &ssd.aliases[..])));
}

#[test]
fn every_entry_is_found_by_its_name_its_title_and_its_other_names() {
    let all = catalogue();
    for gpu in &all.gpus {
        for text in [&gpu.name, &gpu.title].into_iter().chain(&gpu.aliases) {
            assert_eq!(all.gpu(text).unwrap().name, gpu.name, "{text}");
            assert_eq!(
                all.describe(&Asked { gpu: Some(text.clone()), ..Asked::default() }).unwrap().gpu.unwrap().0.name,
                gpu.name
            );
        }
    }
    for cpu in &all.cpus {
        assert_eq!(all.cpu(&cpu.title).unwrap().name, cpu.name);
    }
    for ssd in &all.ssds {
        let asked = Asked { nvme: vec![ssd.title.clone()], ..Asked::default() };
        assert_eq!(all.describe(&asked).unwrap().ssds[0].name, ssd.name);
    }
}

#[test]
fn every_entry_names_its_source_and_how_sure_it_is() {
    let all = catalogue();
    let sources = all.gpus.iter().map(|gpu| &gpu.source).chain(all.cpus.iter().map(|cpu| &cpu.source));
    for source in sources.chain(all.ssds.iter().map(|ssd| &ssd.source)) {
        assert!(["(A)", "(B)", "(C)", "(K)"].iter().any(|quality| source.contains(quality)), "{source}");
    }
}

#[test]
fn figures_of_cards_agree_with_each_other() {
    for gpu in &catalogue().gpus {
        let per_watt = gpu.bf16_tflops.unwrap_or(gpu.fp32_tflops) / gpu.watts;
        assert!((0.03..3.0).contains(&per_watt), "{}: {per_watt} TFLOPS/W", gpu.name);
        assert!((5.0..500.0).contains(&(gpu.bandwidth_gb / gpu.memory_gib)) || gpu.unified, "{}", gpu.name);
        assert!(gpu.bf16_tflops.is_none_or(|bf16| bf16 >= gpu.fp32_tflops), "{}", gpu.name);
        assert!(
            gpu.measured_tflops
                .is_none_or(|measured| { measured <= 1.05 * gpu.bf16_tflops.or(gpu.fp16_tflops).unwrap() })
        );
        assert!(gpu.memory_bytes() < (gpu.memory_gib * 1.0737e9) as u64, "{}", gpu.name);
        assert_eq!(gpu.unified, gpu.pcie_lanes.is_none(), "{}", gpu.name);
    }
}

#[test]
fn rated_endurance_of_drives_agrees_with_writes_a_day_over_three_to_six_years() {
    for ssd in &catalogue().ssds {
        let Some(dwpd) = ssd.dwpd else { continue };
        let years = ssd.tbw / (ssd.capacity_gb as f64 / 1000.0 * dwpd * 365.0);
        assert!((2.7..6.5).contains(&years), "{}: {years:.1} years", ssd.name);
        assert!(ssd.sustained_write_mb.is_none_or(|sustained| sustained < ssd.write_mb), "{}", ssd.name);
    }
}

#[test]
fn threadripper_3960x_sustains_0_8_of_102_gb_a_second() {
    let dram = catalogue().cpu("threadripper-3960x").unwrap().dram_bytes_per_second();
    assert!((dram / 1e9 - 102.4 * 0.8).abs() < 1e-9, "{dram}");
}

#[test]
fn a_24_gib_card_leaves_25_3_gb_to_programs_and_one_with_error_correction_less() {
    let all = catalogue();
    assert_eq!(all.gpu("rtx-4090").unwrap().memory_bytes(), 24 * (1 << 30) - 500_000_000);
    let bytes = all.gpu("a10").unwrap().memory_bytes();
    assert!((23.5e9..23.8e9).contains(&(bytes as f64)), "{bytes}");
}

#[test]
fn loose_spellings_find_the_card_that_is_meant() {
    let all = catalogue();
    let spellings = [
        ("RTX 4090", "rtx-4090"),
        ("rtx4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("GeForce RTX 4060 Ti 16GB", "rtx-4060-ti-16gb"),
        ("rtx_a4500", "rtx-a4500"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("Tesla T4", "t4"),
        ("strix halo", "ryzen-ai-max-395-128gb"),
        ("7900 xtx", "rx-7900-xtx"),
        ("mi250x", "mi250x"),
    ];
    for (spelling, name) in spellings {
        assert_eq!(all.gpu(spelling).unwrap().name, name, "{spelling}");
    }
    assert_eq!(all.cpu("7950X").unwrap().name, "ryzen-9-7950x");
    assert_eq!(all.cpu("AMD Ryzen 9 7950X").unwrap().name, "ryzen-9-7950x");
    assert_eq!(all.ssd("Samsung 990 PRO 2TB").unwrap().name, "990-pro-2tb");
}

#[test]
fn unknown_names_get_the_three_nearest_and_the_way_to_the_list() {
    let all = catalogue();
    let message = all.gpu("rtx-4095").unwrap_err().to_string();
    assert!(message.starts_with("unknown gpu \"rtx-4095\"; nearest: rtx-40"), "{message}");
    assert!(message.ends_with("; all of them: tune hardware list gpu"), "{message}");
    assert_eq!(message.matches(", ").count(), 2, "{message}");
    assert!(all.cpu("").is_err() && all.ssd("-").is_err() && all.gpu("x2").is_err());
}

#[test]
fn a_name_that_is_sold_in_several_sizes_gets_their_names() {
    let all = catalogue();
    let message = all.gpu("RTX 4060 Ti").unwrap_err().to_string();
    assert_eq!(
        message,
        "which gpu? \"RTX 4060 Ti\" is sold as rtx-4060-ti-8gb, rtx-4060-ti-16gb; take one of these names"
    );
    assert!(matches!(all.ssd("990 pro"), Err(HardwareError::Ambiguous { .. })));
}

#[test]
fn part_finds_any_kind_and_answers_with_the_nearest_kind() {
    let all = catalogue();
    assert!(matches!(all.part("rtx 3090"), Ok(Part::Gpu(gpu)) if gpu.name == "rtx-3090"));
    assert!(matches!(all.part("epyc-7742"), Ok(Part::Cpu(_))));
    assert!(matches!(all.part("660p-1tb"), Ok(Part::Ssd(_))));
    assert!(matches!(all.part("threadripper-3960z"), Err(HardwareError::Unknown { kind: "cpu", .. })));
    assert!(matches!(all.part("990-pro"), Err(HardwareError::Ambiguous { kind: "ssd", .. })));
}

#[test]
fn a_users_entry_is_added_and_one_of_the_same_name_replaces() {
    let mut all = catalogue();
    let before = all.gpus.len();
    all.add(&card_with(""), "mine.toml").unwrap();
    assert_eq!((all.gpus.len(), all.gpu("my card").unwrap().source.as_str()), (before + 1, "mine.toml"));
    all.add(&card_with("name = \"rtx-4090\"").replace("My Card", "GeForce RTX 4090"), "mine.toml").unwrap();
    assert_eq!((all.gpus.len(), all.gpu("4090").unwrap().watts), (before + 1, 300.0));
}

#[test]
fn unknown_keys_are_refused_with_file_line_and_the_nearest_key() {
    assert_eq!(refused(&card_with("vram = 1")).split(": mine.toml").next().unwrap(), "unknown key `vram`");
    let line = card_with("wats = 3").lines().position(|line| line.starts_with("wats")).unwrap() + 1;
    assert_eq!(refused(&card_with("wats = 3")), format!("unknown key `wats`: mine.toml:{line}; did you mean `watts`?"));
    assert_eq!(refused("[[gpus]]\nname = \"x\"\n"), "unknown key `gpus`: mine.toml:1; did you mean `gpu`?");
}

#[test]
fn every_number_that_no_part_has_is_refused_with_its_place_and_bounds() {
    assert_eq!(refused(&card_with("watts = -5")), "mine.toml:2: my-card: watts = -5; expected 5 to 5000 W");
    for line in [
        "watts = nan",
        "watts = inf",
        "memory_gib = 0",
        "memory_gib = 1e9",
        "bandwidth_gb = -1",
        "fp32_tflops = 0",
        "bf16_tflops = 1e9",
        "fp16_tflops = -1",
        "measured_tflops = nan",
        "usable_gib = 25",
        "pcie_lanes = 0",
        "pcie_lanes = 32",
        "pcie_generation = 9",
        "card_link_gb = 0",
        "cpu_cores = 0",
    ] {
        let message = refused(&card_with(line));
        assert!(message.starts_with("mine.toml:2: my-card: ") && message.contains("expected"), "{line}: {message}");
    }
    let cpu = "[[cpu]]\nname = \"c\"\ntitle = \"C\"\ncores = 0\nmemory_channels = 2\nmemory_mts = 3200\npcie_generation = 4\npcie_lanes = 20\n\
        fp32_tflops = 1\nwatts = 65\n";
    assert_eq!(refused(cpu), "mine.toml:1: c: cores = 0; expected 1 to 4096 cores");
    let ssd = "[[ssd]]\nname = \"s\"\ntitle = \"S\"\ncapacity_gb = 1000\nread_mb = 1000\nwrite_mb = 500\nsustained_write_mb = 600\ntbw = 1\n\
        pcie_generation = 4\n";
    assert_eq!(refused(ssd), "mine.toml:1: s: sustained_write_mb = 600; expected 5 to 500 MB/s");
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    assert!(refused(&card_with("name = \"My Card\"")).contains("a name is made of a-z, 0-9, dashes and dots"));
    assert!(refused(&card_with("unified = true")).contains("needs cpu_cores"));
    let twice = format!("{}{}", card_with(""), card_with(""));
    assert!(refused(&twice).ends_with("my-card: there twice in this file; leave one"));
    let without = card_with("").replace("pcie_lanes = 16\n", "");
    assert!(refused(&without).contains("a card needs pcie_generation and pcie_lanes"));
    assert!(refused(&card_with("").replace("watts = 300\n", "")).contains("missing key `watts`"));
    assert!(refused("[[gpu]\n").starts_with("mine.toml:1: "));
    assert!(refused(&card_with("vendor = \"acme\"")).contains("unknown variant `acme`"));
}
