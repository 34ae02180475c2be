//! Bytes of a model's weights by format.
//!
//! In:    an inventory: matrices by role and shape.
//! Out:   bytes of all tensors, as the writers of each format mix their block types.
//! Never: headers and tokenizers of files (5 to 8 MB in a GGUF).

use crate::inventory::{Inventory, Matrices, MatrixKind};

/// A format of all weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Two bytes everywhere.
    Bf16,
    /// llama.cpp Q8_0.
    Q8Zero,
    /// llama.cpp Q6_K.
    Q6K,
    /// llama.cpp Q4_K_M: Q4_K, and Q6_K for half of the value and down projections and for the head; 4.89 bits a weight for
    /// Llama 3.1 8B.
    Q4KM,
    /// bitsandbytes NF4 with double quantisation; linear layers of blocks only, the rest in bf16.
    Nf4,
    /// gpt-oss as published: experts in MXFP4, the rest in bf16.
    Mxfp4,
    /// DeepSeek-V3 as published: linear layers in FP8 with one f32 scale a 128x128 block, the rest in bf16.
    Fp8,
}

/// A block of a format: so many numbers in so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    numbers: u64,
    bytes: u64,
}

const F32: Block = Block { numbers: 1, bytes: 4 };
const TWO_BYTES: Block = Block { numbers: 1, bytes: 2 };
/// GGML block types, sizes from `ggml-common.h`.
const Q8_0: Block = Block { numbers: 32, bytes: 34 };
const Q5_1: Block = Block { numbers: 32, bytes: 24 };
const Q5_0: Block = Block { numbers: 32, bytes: 22 };
const Q6_K: Block = Block { numbers: 256, bytes: 210 };
const Q5_K: Block = Block { numbers: 256, bytes: 176 };
const Q4_K: Block = Block { numbers: 256, bytes: 144 };
const MXFP4: Block = Block { numbers: 32, bytes: 17 };
/// 4 bits, 8 bits of scale for 64 numbers, 32 bits of its scale for 256 of those: 0.5159 bytes (QLoRA, arXiv:2305.14314).
const NF4: Block = Block { numbers: 64 * 256, bytes: 64 * 256 / 2 + 256 + 4 };
const FP8: Block = Block { numbers: 128 * 128, bytes: 128 * 128 + 4 };

impl Format {
    /// Formats that a model is served in.
    pub fn of(inventory: &Inventory) -> Vec<Format> {
        let mut formats = vec![Format::Bf16, Format::Q8Zero, Format::Q6K, Format::Q4KM, Format::Nf4];
        match inventory.stored_format.as_deref() {
            Some("mxfp4") => formats.push(Format::Mxfp4),
            Some("fp8") => formats.push(Format::Fp8),
            _ => {}
        }
        formats
    }

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Bf16 => "bf16",
            Format::Q8Zero => "q8_0",
            Format::Q6K => "q6_k",
            Format::Q4KM => "q4_k_m",
            Format::Nf4 => "nf4",
            Format::Mxfp4 => "mxfp4",
            Format::Fp8 => "fp8",
        }
    }

    fn is_gguf(self) -> bool {
        matches!(self, Format::Q8Zero | Format::Q6K | Format::Q4KM)
    }
}

/// Bytes of all weights in `format`.
pub(super) fn weights_bytes(inventory: &Inventory, format: Format) -> u64 {
    let matrices = inventory.matrices.iter().map(|group| matrix_bytes(inventory, group, format));
    let linear = matrices.fold(0, u64::saturating_add);
    let (embedding, head) = outer_blocks(inventory, format);
    // GGUF files keep norms, biases and routers in f32.
    let rest = if format.is_gguf() { F32 } else { TWO_BYTES };
    let outer = [
        stored(embedding, inventory.embedding_parameters),
        stored(head, inventory.head_parameters),
        stored(rest, inventory.rest_parameters()),
    ];
    outer.into_iter().fold(linear, u64::saturating_add)
}

/// Blocks of embedding and head. A tied embedding serves as the head and is stored like one.
fn outer_blocks(inventory: &Inventory, format: Format) -> (Block, Block) {
    let (embedding, head) = match format {
        Format::Q8Zero => (Q8_0, Q8_0),
        Format::Q6K => (Q6_K, Q6_K),
        Format::Q4KM if inventory.tied_head() => (Q6_K, Q6_K),
        Format::Q4KM => (Q4_K, Q6_K),
        Format::Bf16 | Format::Nf4 | Format::Mxfp4 | Format::Fp8 => (TWO_BYTES, TWO_BYTES),
    };
    (fitting(embedding, inventory.hidden), fitting(head, inventory.hidden))
}

fn matrix_bytes(inventory: &Inventory, group: &Matrices, format: Format) -> u64 {
    let expert = matches!(group.kind, MatrixKind::ExpertGateUp | MatrixKind::ExpertDown);
    let kept = inventory.stored_format.as_deref() == Some("mxfp4") && expert;
    let all = |block: Block| stored(fitting(block, group.inputs), group.parameters());
    match format {
        // llama.cpp takes experts that come in MXFP4 over as they are.
        Format::Q8Zero | Format::Q6K | Format::Q4KM | Format::Mxfp4 if kept => all(MXFP4),
        Format::Bf16 | Format::Mxfp4 => all(TWO_BYTES),
        Format::Q8Zero => all(Q8_0),
        Format::Q6K => all(Q6_K),
        Format::Nf4 => all(NF4),
        Format::Fp8 => all(FP8),
        Format::Q4KM => {
            let (often, seldom) = q4_k_m(inventory, group.kind);
            let rich = u128::from(group.parameters()) * u128::from(rich_layers(inventory.layers))
                / u128::from(inventory.layers.max(1));
            let rich = u64::try_from(rich).unwrap_or(u64::MAX);
            let stored = |block: Block, numbers: u64| stored(fitting(block, group.inputs), numbers);
            stored(seldom, rich).saturating_add(stored(often, group.parameters().saturating_sub(rich)))
        }
    }
}

/// Block types of Q4_K_M: of most layers, and of those that get more bits (llama.cpp `llama_tensor_get_type`).
fn q4_k_m(inventory: &Inventory, kind: MatrixKind) -> (Block, Block) {
    let eight_experts = inventory.experts == 8;
    match kind {
        MatrixKind::Key | MatrixKind::Value if eight_experts => (Q8_0, Q8_0),
        MatrixKind::AttentionOutput if eight_experts => (Q5_K, Q5_K),
        // Networks of 80 layers share a value head among eight query heads.
        MatrixKind::Value if inventory.layers == 80 => (Q5_K, Q6_K),
        MatrixKind::Value | MatrixKind::Down | MatrixKind::ExpertDown => (Q4_K, Q6_K),
        MatrixKind::FusedAttention => (Q5_K, Q5_K),
        MatrixKind::Query
        | MatrixKind::Key
        | MatrixKind::LatentAttention
        | MatrixKind::AttentionOutput
        | MatrixKind::GateUp
        | MatrixKind::ExpertGateUp => (Q4_K, Q4_K),
    }
}

/// Layers that get more bits: the first and the last eighth, and every third between (llama.cpp `use_more_bits`).
fn rich_layers(layers: u32) -> u32 {
    let eighth = layers / 8;
    let rich =
        |layer: &u32| *layer < eighth || u64::from(*layer) >= 7 * u64::from(layers) / 8 || (layer - eighth) % 3 == 2;
    u32::try_from((0..layers.min(1 << 16)).filter(rich).count()).unwrap_or(u32::MAX)
}

/// The block type that llama.cpp falls back to where a row is no multiple of the block.
fn fitting(block: Block, row: u64) -> Block {
    let fits = |block: Block| row.is_multiple_of(block.numbers);
    let smaller = match block {
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        // Blocks of bitsandbytes and of FP8 run over row ends.
        NF4 | FP8 => return block,
        other => other,
    };
    match (fits(block), fits(smaller)) {
        (true, _) => block,
        (false, true) => smaller,
        (false, false) => TWO_BYTES,
    }
}

fn stored(block: Block, numbers: u64) -> u64 {
    let bytes = (u128::from(numbers) * u128::from(block.bytes)).div_ceil(u128::from(block.numbers));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
