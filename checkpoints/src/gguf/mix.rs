//! Which storage format each tensor of a quantised model gets.
//!
//! In:    the mix by llama.cpp's name (`Q4_K_M`), a tensor's GGUF name and shape, the size of the network.
//! Out:   the format, and which one it replaces where a row is no whole number of blocks.
//! Never: quantises norms and biases: llama.cpp reads them as f32.
//!
//! The rules are those of llama.cpp's `llama_tensor_get_type` (`llama-quant.cpp`) without importance matrix, for the architectures
//! that are written here.

use super::blocks::BlockType;

/// A file type by llama.cpp's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the names the format has everywhere else")]
pub enum Mix {
    /// Every number a 32-bit float.
    F32,
    /// Matrices in 16-bit floats.
    F16,
    /// Matrices in bfloat16.
    BF16,
    /// Matrices in 8 bits: 8.5 bits a weight.
    Q8_0,
    /// Matrices in 6 bits: 6.6 bits a weight.
    Q6_K,
    /// 4 bits, the head in 6: about 4.6 bits a weight.
    Q4_0,
    /// 4 bits, the head in 6, some of the first layers in 5.
    Q4_K_S,
    /// 4 bits, the head and half of the values and down projections in 6: about 4.9 bits a weight.
    Q4_K_M,
}

/// What of the network decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixNetwork {
    /// Number of blocks.
    pub layers: usize,
    /// There is no `output.weight`: the embedding is the head too.
    pub tied_head: bool,
}

/// A tensor's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// How it is stored.
    pub kind: BlockType,
    /// What the mix asks for, where a row is no whole number of such blocks.
    pub instead_of: Option<BlockType>,
}

impl Mix {
    /// All of them, the largest file first.
    pub const ALL: [Mix; 8] =
        [Mix::F32, Mix::F16, Mix::BF16, Mix::Q8_0, Mix::Q6_K, Mix::Q4_0, Mix::Q4_K_S, Mix::Q4_K_M];

    /// llama.cpp's name.
    pub fn name(self) -> &'static str {
        match self {
            Mix::F32 => "F32",
            Mix::F16 => "F16",
            Mix::BF16 => "BF16",
            Mix::Q8_0 => "Q8_0",
            Mix::Q6_K => "Q6_K",
            Mix::Q4_0 => "Q4_0",
            Mix::Q4_K_S => "Q4_K_S",
            Mix::Q4_K_M => "Q4_K_M",
        }
    }

    /// The mix of a name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Mix> {
        Mix::ALL.into_iter().find(|mix| mix.name().eq_ignore_ascii_case(name))
    }

    /// `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Mix::F32 => 0,
            Mix::F16 => 1,
            Mix::Q4_0 => 2,
            Mix::Q8_0 => 7,
            Mix::Q4_K_S => 14,
            Mix::Q4_K_M => 15,
            Mix::Q6_K => 18,
            Mix::BF16 => 32,
        }
    }

    /// Format of the tensor with this GGUF name and shape.
    pub fn choose(self, name: &str, shape: &[usize], network: MixNetwork) -> Choice {
        if shape.len() < 2 {
            return Choice { kind: BlockType::F32, instead_of: None };
        }
        let row = shape[shape.len() - 1];
        let wanted = self.wanted(name, row, network);
        let mut kind = wanted;
        while !row.is_multiple_of(kind.elements()) {
            kind = smaller_blocks(kind);
        }
        Choice { kind, instead_of: (kind != wanted).then_some(wanted) }
    }

    /// Format of most matrices.
    fn base(self) -> BlockType {
        match self {
            Mix::F32 => BlockType::F32,
            Mix::F16 => BlockType::F16,
            Mix::BF16 => BlockType::BF16,
            Mix::Q8_0 => BlockType::Q8_0,
            Mix::Q6_K => BlockType::Q6_K,
            Mix::Q4_0 => BlockType::Q4_0,
            Mix::Q4_K_S | Mix::Q4_K_M => BlockType::Q4_K,
        }
    }

    fn wanted(self, name: &str, row: usize, network: MixNetwork) -> BlockType {
        let base = self.base();
        if base.elements() == 1 {
            return base;
        }
        let head = if network.tied_head { "token_embd.weight" } else { "output.weight" };
        if name == head {
            return match base {
                BlockType::Q8_0 => BlockType::Q8_0,
                base if !row.is_multiple_of(base.elements()) => BlockType::Q8_0,
                _ => BlockType::Q6_K,
            };
        }
        let Some((layer, part)) = layer_and_part(name) else { return base };
        let more = more_bits(layer, network.layers);
        match (self, part) {
            (Mix::Q4_K_M, "attn_v.weight" | "ffn_down.weight") if more => BlockType::Q6_K,
            (Mix::Q4_K_S, "attn_v.weight") if layer < 4 => BlockType::Q5_K,
            (Mix::Q4_K_S, "ffn_down.weight") if layer < network.layers / 8 => BlockType::Q5_K,
            // llama.cpp's 70B rule: with 80 layers, eight query heads share each value head, so the matrix is small.
            (Mix::Q4_K_S | Mix::Q4_K_M, "attn_v.weight") if network.layers == 80 => BlockType::Q5_K,
            _ => base,
        }
    }
}

/// `use_more_bits`: the first and the last eighth of the layers, and every third one between.
fn more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

fn layer_and_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// What llama.cpp takes where a row is no whole number of blocks.
fn smaller_blocks(kind: BlockType) -> BlockType {
    match kind {
        BlockType::Q4_K => BlockType::Q5_0,
        BlockType::Q5_K => BlockType::Q5_1,
        BlockType::Q6_K => BlockType::Q8_0,
        _ => BlockType::F16,
    }
}
