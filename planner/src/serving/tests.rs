//! Facts about memory to serve; sizes are those of published files and of a published measurement.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::inventory::find;

fn row(name: &str, format: &str, context: u64) -> Serving {
    let rows = serving(&find(name).unwrap(), context);
    rows.into_iter().find(|row| row.format == format).unwrap()
}

#[test]
fn gguf_files_have_the_published_size() {
    // Sizes that the hub shows for llama.cpp's own quantisations, GB; file heads and tokenizers are 5 to 8 MB of them.
    for (name, format, published) in [
        ("llama-3.1-8b", "q4_k_m", 4.92),
        ("llama-3.1-8b", "q6_k", 6.60),
        ("llama-3.1-8b", "q8_0", 8.54),
        ("llama-3.1-70b", "q4_k_m", 42.52),
        ("llama-3.1-70b", "q6_k", 57.89),
        ("llama-3.1-70b", "q8_0", 74.98),
        ("llama-3.2-1b", "q4_k_m", 0.808),
        ("llama-3.2-3b", "q4_k_m", 2.02),
        ("qwen2.5-0.5b", "q4_k_m", 0.398),
        ("qwen2.5-7b", "q4_k_m", 4.68),
        ("qwen2.5-32b", "q4_k_m", 19.85),
        ("qwen2.5-72b", "q4_k_m", 47.42),
        ("gemma-3-4b", "q4_k_m", 2.49),
        ("mistral-7b-v0.3", "q4_k_m", 4.37),
        ("mistral-nemo-12b", "q4_k_m", 7.48),
        ("mistral-small-24b", "q4_k_m", 14.33),
        ("phi-4", "q4_k_m", 9.05),
        ("mixtral-8x7b", "q4_k_m", 28.45),
        ("gpt-oss-20b", "q8_0", 12.1),
    ] {
        let gigabytes = row(name, format, 0).weights_bytes as f64 / 1e9;
        println!(
            "{name:20} {format:7} {gigabytes:7.3} GB, published {published:7.3}, {:+.2} %",
            100.0 * (gigabytes / published - 1.0)
        );
        assert!(
            (gigabytes / published - 1.0).abs() < 0.03,
            "{name} {format}: {gigabytes:.3} GB, published {published}"
        );
    }
}

#[test]
fn gpt_oss_takes_what_its_checkpoints_take() {
    // Model card, table 1: 12.8 and 60.8 GiB.
    for (name, published) in [("gpt-oss-20b", 12.8), ("gpt-oss-120b", 60.8)] {
        let gib = row(name, "mxfp4", 0).weights_bytes as f64 / (1u64 << 30) as f64;
        assert!((gib - published).abs() < 0.06, "{name}: {gib:.2} GiB");
    }
}

#[test]
fn inference_takes_what_litgpt_measured_on_an_a100() {
    // litgpt's resource tables, A100 40 GB, batch 1, prompt and answer of about 100 tokens; allocated GB.
    for (name, format, measured) in [
        ("llama-2-7b", "bf16", 13.52),
        ("llama-2-13b", "bf16", 26.21),
        ("llama-2-7b", "nf4", 4.26),
        ("llama-2-13b", "nf4", 7.72),
        ("llama-2-70b", "nf4", 37.21),
    ] {
        let found = row(name, format, 100);
        let (weights, total) = (found.weights_bytes as f64 / 1e9, found.total_bytes as f64 / 1e9);
        println!("{name:12} {format:5} weights {weights:6.2} total {total:6.2} GB, measured {measured:6.2}");
        // Cache and workspace sit above the weights, 1.2 GB at most; the total allows for the CUDA context too, which the
        // measurement leaves out.
        assert!(weights < measured && measured < weights + 1.2, "{name} {format}: {weights:.2}, measured {measured}");
        assert!((total / measured - 1.0).abs() < 0.06, "{name} {format}: {total:.2}, measured {measured}");
    }
}

#[test]
fn double_quantised_nf4_takes_4_127_bits_a_weight() {
    let llama = find("llama-3.1-8b").unwrap();
    let two_bytes = 2 * (llama.parameters - llama.linear_parameters);
    let linear = row("llama-3.1-8b", "nf4", 0).weights_bytes - two_bytes;
    assert!((8.0 * linear as f64 / llama.linear_parameters as f64 - 4.127).abs() < 0.001);
}

#[test]
fn caches_grow_with_the_context_and_windows_cap_them() {
    // 128 KiB a token in f16, 16 GiB for the whole context of 131,072.
    assert_eq!(row("llama-3.1-8b", "bf16", 131_072).cache_bytes, 16 << 30);
    let gemma = |tokens: u64| row("gemma-3-27b", "bf16", tokens).cache_bytes;
    let (full, windowed) = (10 * 4096 * 2, 52 * 4096 * 2);
    assert_eq!(gemma(1), full + windowed);
    assert_eq!(gemma(1024), 1024 * (full + windowed));
    assert_eq!(gemma(8192), 8192 * full + 1024 * windowed);
    assert_eq!(row("mistral-7b-v0.1", "bf16", 8192).cache_bytes, 8192 * 131_072);
}

#[test]
fn formats_are_listed_once_and_add_up() {
    let formats =
        |name: &str| serving(&find(name).unwrap(), 4096).into_iter().map(|row| row.format).collect::<Vec<_>>();
    assert_eq!(formats("llama-3.1-8b"), ["bf16", "q8_0", "q6_k", "q4_k_m", "nf4"]);
    assert_eq!(formats("gpt-oss-120b").last().unwrap(), "mxfp4");
    assert_eq!(formats("deepseek-v3").last().unwrap(), "fp8");
    for entry in crate::inventory::known() {
        for row in serving(&entry.inventory().unwrap(), 4096) {
            assert_eq!(row.total_bytes, row.weights_bytes + row.cache_bytes + row.workspace_bytes);
            assert!(row.format == "bf16" || row.weights_bytes < 2 * entry.inventory().unwrap().parameters);
        }
    }
}

#[test]
fn a_context_beyond_all_memory_saturates() {
    let huge = row("llama-3.1-405b", "bf16", u64::MAX);
    assert_eq!((huge.cache_bytes, huge.total_bytes), (u64::MAX, u64::MAX));
}
