//! The cards that published speeds were measured on.
//!
//! In:    nothing.
//! Out:   [`PUBLISHED_CARDS`].
//! Never: replaces the catalogue: these are only what the rows of this module need.

/// A card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// As rows name it.
    pub name: &'static str,
    /// Dense bf16 (V100: fp16) products with f32 sums as specified, TFLOPS.
    pub tflops: f64,
    /// Share of it that large products reach.
    pub sustained: f64,
    /// Memory bandwidth, GB/s.
    pub bandwidth_gb: f64,
    /// PCIe one way, usable, GB/s.
    pub link_gb: f64,
}

const fn card(name: &'static str, tflops: f64, sustained: f64, bandwidth_gb: f64, link_gb: f64) -> Card {
    Card { name, tflops, sustained, bandwidth_gb, link_gb }
}

/// Specified rates: TechPowerUp and vendors' papers. Sustained shares, measured: A100 0.87, H100/H200 0.80 (MAMF, ml-engineering), RTX 4090
/// 1.04 (transformers-benchmarks: 172 TFLOPS; it boosts beyond its specified clock), RTX 3050 Laptop 0.80 (Soup: 8.8 TFLOPS). Assumed: other GeForce
/// 1.0; workstation cards of up to 300 W 0.60 (the RTX A6000 measures 0.61); RTX PRO 6000 of 600 W 0.85; H100 capped at 500 W of 700 W
/// 0.80 * sqrt(500 / 700) = 0.68.
pub const PUBLISHED_CARDS: [Card; 17] = [
    card("RTX 4090", 165.2, 1.04, 1008.0, 25.0),
    card("RTX 5090", 209.5, 1.0, 1792.0, 53.0),
    card("RTX 5080", 112.6, 1.0, 960.0, 53.0),
    card("RTX 5060 Ti", 47.4, 1.0, 448.0, 25.0),
    card("RTX 4070 Ti SUPER", 88.2, 1.0, 672.0, 25.0),
    card("RTX 3050 Laptop", 11.0, 0.80, 192.0, 8.0),
    card("RTX 4000 Ada", 106.9, 0.60, 360.0, 25.0),
    card("RTX 5000 Ada", 261.0, 0.60, 576.0, 25.0),
    card("RTX 6000 Ada", 364.0, 0.60, 960.0, 25.0),
    card("RTX PRO 6000", 504.0, 0.85, 1792.0, 53.0),
    card("RTX PRO 6000 Max-Q", 439.0, 0.60, 1792.0, 53.0),
    card("A100 40GB", 312.0, 0.87, 1555.0, 25.0),
    card("A100 80GB", 312.0, 0.87, 2039.0, 25.0),
    card("H100", 989.0, 0.80, 3350.0, 53.0),
    card("H100 500W", 989.0, 0.68, 2400.0, 53.0),
    card("H200", 989.0, 0.80, 4800.0, 53.0),
    card("V100", 125.0, 0.76, 900.0, 12.0),
];
