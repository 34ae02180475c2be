//! Training on devices beside the processor, through the program.
//!
//! With `--features wgpu` on a machine that has a Vulkan device, if only in software: `cargo test --release --features wgpu devices`.

use super::*;

/// What a build or a machine without the device says, in one line.
fn is_refused(device: &str, words: &[&str]) {
    let runs = Runs::new();
    let result = runs.run("out", &[&format!("hardware.device={device}")]);
    let text = said(&result);
    assert_eq!(result.status.code(), Some(2), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && words.iter().all(|word| errors[0].contains(word)), "{text}");
    assert!(!runs.path("out").exists() && !text.contains("panicked"), "{text}");
    let result = runs.tune(&["bench", "kernels", "--device", device]);
    assert_eq!(result.status.code(), Some(2), "{}", said(&result));
}

#[test]
fn a_device_that_is_not_there_is_refused_in_one_line_with_what_to_do() {
    match cfg!(feature = "cuda") {
        false => is_refused("cuda:0", &["cuda:0", "--features cuda"]),
        true => is_refused("cuda:99", &["cuda:99"]),
    }
    match cfg!(feature = "wgpu") {
        false => is_refused("vulkan:0", &["vulkan:0", "--features wgpu"]),
        true => is_refused("vulkan:99", &["vulkan:99"]),
    }
}

/// A folder of files that have the names of drivers' libraries and are none; the loader looks there first.
fn no_drivers(runs: &Runs) -> PathBuf {
    let folder = runs.path("no-drivers");
    fs::create_dir(&folder).unwrap();
    for name in ["libcuda.so", "libnvidia-ml.so", "libvulkan.so"] {
        fs::write(folder.join(name), "").unwrap();
        fs::write(folder.join(format!("{name}.1")), "").unwrap();
    }
    folder
}

#[test]
fn a_machine_without_drivers_trains_on_its_processor_and_refuses_cards_with_what_to_install() {
    let runs = Runs::new();
    let folder = no_drivers(&runs);
    let run = |output: &str, device: &str| {
        let device = format!("hardware.device={device}");
        let mut command = runs.command(output, &[&LORA[..], &[&device]].concat());
        command.env("LD_LIBRARY_PATH", &folder).output().unwrap()
    };
    for device in ["auto", "cpu"] {
        let result = run(device, device);
        assert_eq!(result.status.code(), Some(0), "{}", said(&result));
        assert_eq!(runs.steps(device).len(), 4);
    }
    let told = |has_feature: bool, feature: &str, library: &str| match has_feature {
        true => library.to_owned(),
        false => format!("--features {feature}"),
    };
    let cuda = told(cfg!(feature = "cuda"), "cuda", "libcuda.so.1 is not there; install the driver");
    let vulkan = told(cfg!(feature = "wgpu"), "wgpu", "libvulkan.so.1 is not there; install the loader");
    for (device, words) in [("cuda:0", cuda), ("vulkan:0", vulkan)] {
        let line = error_line(&run("refused", device), 2);
        assert!(line.contains(&words), "`{words}` is not in: {line}");
        assert!(!runs.path("refused").exists());
    }
}

#[test]
fn the_processors_kernels_are_checked_and_measured_as_any_devices() {
    let runs = Runs::new();
    let result = runs.tune(&["bench", "kernels", "--device", "cpu", "--json"]);
    assert_eq!(result.status.code(), Some(0), "{}", said(&result));
    let told: Value = serde_json::from_slice(&result.stdout).unwrap();
    let formats = told["formats"].as_array().unwrap();
    assert_eq!(formats.len(), 2);
    for format in formats {
        assert!(format["results"].as_array().unwrap().len() > 150);
        assert!(format["product_flops"].as_f64().unwrap() > 1e8);
    }
}

#[cfg(feature = "wgpu")]
mod vulkan {
    use super::*;

    const VULKAN: &str = "hardware.device=vulkan:0";
    const NO_VULKAN: &str = "no Vulkan";

    /// `None`, visibly, where the machine has no Vulkan device.
    fn runs() -> Option<Runs> {
        let runs = Runs::new();
        let result = runs.tune(&["plan", "recipe.toml", "--set", VULKAN]);
        let text = said(&result);
        if text.contains(NO_VULKAN) || text.contains("lists no device") {
            eprintln!("SKIPPED: {text}");
            return None;
        }
        assert_eq!(result.status.code(), Some(0), "{text}");
        Some(runs)
    }

    fn losses(runs: &Runs, output: &str) -> Vec<f64> {
        runs.steps(output).iter().map(|step| step["loss"].as_f64().unwrap()).collect()
    }

    fn assert_near(ours: &[f64], theirs: &[f64], what: &str) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        for (a, b) in ours.iter().zip(theirs) {
            assert!((a - b).abs() <= 2e-3 * b, "{what}: {ours:?} on Vulkan, {theirs:?} on the processor");
        }
    }

    /// Losses are those of the processor, adapters the same to the byte wherever the base lives.
    #[test]
    fn adapters_train_as_on_the_processor_and_to_the_bit_alike_in_every_tier() {
        let Some(runs) = runs() else { return };
        let methods: [(&str, &[&str]); 3] = [
            ("lora", &LORA),
            ("nf4", &["method.kind=qlora", "method.rank=4", "method.alpha=8"]),
            ("int8", &["method.kind=qlora", "method.bits=8", "method.rank=4", "method.alpha=8"]),
        ];
        for (name, method) in methods {
            let output = |place: &str| format!("{name}-{place}");
            let auto = ["offload.gradients=auto", "offload.optimizer=auto", "offload.activations=device"];
            let run = |place: &str, tier: &str, device: &str| {
                let weights = format!("offload.weights={tier}");
                runs.succeeds(&output(place), &[method, &auto[..], &[&weights, device]].concat());
                fs::read(runs.path(&output(place)).join("adapter/adapter_model.safetensors")).unwrap()
            };
            run("cpu", "device", "hardware.device=cpu");
            let device = run("device", "device", VULKAN);
            assert_near(&losses(&runs, &output("device")), &losses(&runs, &output("cpu")), name);
            for tier in ["dram", "nvme"] {
                assert_eq!(run(tier, tier, VULKAN), device, "{name} in {tier}");
            }
            let steps = runs.steps(&output("device"));
            let pool = |key: &str| steps[steps.len() - 1][key].as_u64().unwrap();
            assert!(pool("pool_used_bytes") > 0 && pool("pool_reserved_bytes") >= pool("pool_used_bytes"), "{steps:?}");
        }
    }

    /// Software on Vulkan has no bf16; a device that has it trains.
    #[test]
    fn a_format_that_the_device_lacks_is_refused_before_anything_is_loaded() {
        let Some(runs) = runs() else { return };
        let result = runs.run("out", &[&LORA[..], &["model.precision=bf16", VULKAN]].concat());
        let text = said(&result);
        match result.status.code() {
            Some(0) => assert!(!runs.steps("out").is_empty()),
            code => assert!(code == Some(2) && text.contains("does not compute in bf16"), "{text}"),
        }
    }

    #[test]
    fn all_weights_train_as_on_the_processor_and_what_was_trained_is_measured_there() {
        let Some(runs) = runs() else { return };
        let auto =
            ["offload.weights=auto", "offload.gradients=auto", "offload.optimizer=auto", "offload.activations=auto"];
        runs.succeeds("cpu", &[&auto[..], &["hardware.device=cpu"]].concat());
        runs.succeeds("vulkan", &[&auto[..], &[VULKAN]].concat());
        assert_near(&losses(&runs, "vulkan"), &losses(&runs, "cpu"), "full");
        let measured = runs.tune(&["eval", "vulkan", "--json"]);
        let figures: Value = serde_json::from_slice(&measured.stdout).unwrap_or_else(|_| panic!("{}", said(&measured)));
        assert_eq!(figures["tuned"]["loss"].as_f64(), runs.held_out("vulkan").last().copied());
    }
}
