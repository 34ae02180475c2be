//! What a described machine sustains, from the published figures of its parts.
//!
//! In:    a [`Described`] machine.
//! Out:   [`Rates`] of the parts alone; what an engine makes of them is the time model's and the band's.
//! Never: measures.
//!
//! Shares of the peak, and where they come from:
//!
//! | part | share | source |
//! |---|---|---|
//! | products, measured on this very card | as measured | `measured_tflops` of the entry: ml-engineering MAMF, transformers-benchmarks |
//! | products, GeForce | 1.0 | 4090 172 of 165, 3090 Ti 81 of 80: boost clocks exceed the published ones |
//! | products, workstation | 0.6 | A6000 95 of 155; the same chips at the same power behave alike |
//! | products, data centre | 0.8 | H100 0.80, A100 0.81 to 0.87, B200 0.78 |
//! | products, AMD, Intel | 0.5 | MI300X 668 of 1307; others by analogy (K) |
//! | products, unified | 0.7 | by analogy (K) |
//! | f32 products, NVIDIA with bf16 | half of bf16 | TF32 tensor cores |
//! | attention | 0.5 of the products | fused attention in published kernels, roughly (K) |
//! | device memory | 0.85 | of the published bandwidth (K) |
//! | element-wise work | 0.8 of the bandwidth | (K) |
//! | between cards | 0.4 of both ways together; 0.7 of the host link without one | (K) |

use super::links::{card_link, drive_rates};
use super::{Class, Cpu, Described, Gpu, Vendor};
use crate::rates::{ComputeRates, Rates, RatesOrigin};

const ATTENTION_SHARE: f64 = 0.5;
const DEVICE_MEMORY_SHARE: f64 = 0.85;
const VECTOR_SHARE: f64 = 0.8;
/// Share of a unified machine's bandwidth that its processor cores reach (K).
const UNIFIED_CPU_SHARE: f64 = 0.5;
/// bf16 products of a processor without instructions for them, as a share of its f32 products: each operand is widened first.
const WIDENED_BF16_SHARE: f64 = 0.8;
/// Speed of published training against this roofline of sustained rates: eager loops reach 0.4, hand-written kernels all of it.
const BAND_CARD: [f64; 2] = [0.4, 1.05];
/// Graphics parts that nobody publishes training of.
const BAND_UNIFIED: [f64; 2] = [0.3, 1.2];
/// Clocks, cooling and memory modules differ between machines with the same processor.
const BAND_CPU: [f64; 2] = [0.3, 1.5];

/// What a described machine sustains.
pub fn rates(described: &Described) -> Rates {
    match &described.gpu {
        Some((gpu, _)) if gpu.unified => of_unified(described, gpu),
        Some((gpu, count)) => of_card(described, gpu, *count),
        None => of_processor(described, &described.platform()),
    }
}

fn of_card(described: &Described, gpu: &Gpu, count: u32) -> Rates {
    let host_link = card_link(described).map(|link| link.bytes_per_second);
    let between = gpu.card_link_gb.map(|both_ways| both_ways * 1e9 * 0.4).or(host_link.map(|link| link * 0.7));
    Rates {
        origin: RatesOrigin::Catalogue,
        f32: on_card(gpu, f32_flops(gpu)),
        bf16: on_card(gpu, bf16_flops(gpu)),
        device_bytes_per_second: gpu.bandwidth_gb * 1e9 * DEVICE_MEMORY_SHARE,
        dram_bytes_per_second: described.platform().dram_bytes_per_second(),
        host_link_bytes_per_second: host_link,
        card_link_bytes_per_second: between.filter(|_| count > 1),
        nvme: drive_rates(described),
        host: None,
        band: BAND_CARD,
    }
}

fn of_unified(described: &Described, gpu: &Gpu) -> Rates {
    Rates {
        host_link_bytes_per_second: None,
        card_link_bytes_per_second: None,
        dram_bytes_per_second: gpu.bandwidth_gb * 1e9 * UNIFIED_CPU_SHARE,
        band: BAND_UNIFIED,
        ..of_card(described, gpu, 1)
    }
}

fn of_processor(described: &Described, cpu: &Cpu) -> Rates {
    let dram = cpu.dram_bytes_per_second();
    let compute = |tflops: f64| ComputeRates::new(tflops * 1e12, tflops * 1e12 * ATTENTION_SHARE, dram);
    Rates {
        origin: RatesOrigin::Catalogue,
        f32: compute(cpu.fp32_tflops),
        bf16: compute(cpu.bf16_tflops.unwrap_or(cpu.fp32_tflops * WIDENED_BF16_SHARE)),
        device_bytes_per_second: dram,
        dram_bytes_per_second: dram,
        host_link_bytes_per_second: None,
        card_link_bytes_per_second: None,
        nvme: drive_rates(described),
        host: None,
        band: BAND_CPU,
    }
}

fn on_card(gpu: &Gpu, matmul_flops: f64) -> ComputeRates {
    ComputeRates::new(matmul_flops, matmul_flops * ATTENTION_SHARE, gpu.bandwidth_gb * 1e9 * VECTOR_SHARE)
}

/// bf16 products; without hardware for them as slow as f32, because operands are widened.
fn bf16_flops(gpu: &Gpu) -> f64 {
    match (gpu.bf16_tflops, gpu.measured_tflops) {
        (None, _) => f32_flops(gpu),
        (Some(_), Some(measured)) => measured * 1e12,
        (Some(peak), None) => peak * 1e12 * product_share(gpu),
    }
}

fn f32_flops(gpu: &Gpu) -> f64 {
    match (gpu.vendor, gpu.bf16_tflops) {
        (Vendor::Nvidia, Some(_)) => bf16_flops(gpu) / 2.0,
        _ => gpu.fp32_tflops * 1e12 * product_share(gpu),
    }
}

fn product_share(gpu: &Gpu) -> f64 {
    match (gpu.vendor, gpu.class) {
        _ if gpu.unified => 0.7,
        (Vendor::Nvidia, Class::Consumer) => 1.0,
        (Vendor::Nvidia, Class::Workstation) => 0.6,
        (Vendor::Nvidia, Class::DataCentre) => 0.8,
        (Vendor::Amd | Vendor::Intel, _) => 0.5,
        (Vendor::Apple, _) => 0.7,
    }
}
