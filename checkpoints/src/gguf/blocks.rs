//! Decodes GGML block formats to f32, in parallel.
//!
//! In:    the bytes of a tensor, a whole number of blocks.
//! Out:   its numbers; each is computed as ggml's `dequantize_row_*` does, so that goldens agree to the bit.
//! Never: casts bytes to structures (candle-core's blocks have private fields, and unaligned casts would need `unsafe`).
//!
//! Layouts: ggml's `ggml-common.h`; arithmetic: `ggml-quants.c`. Checked by `every_block_type_decodes_like_the_gguf_package`.

use half::{bf16, f16};
use rayon::prelude::*;

/// Names for messages.
pub(super) const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

/// Storage format of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the names the format has everywhere else")]
pub enum BlockType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16.
    BF16,
    /// 4 bits, scale, blocks of 32.
    Q4_0,
    /// 4 bits, scale and minimum, blocks of 32.
    Q4_1,
    /// 5 bits, scale, blocks of 32.
    Q5_0,
    /// 5 bits, scale and minimum, blocks of 32.
    Q5_1,
    /// 8 bits, scale, blocks of 32.
    Q8_0,
    /// 4 bits, super-blocks of 256.
    Q4_K,
    /// 5 bits, super-blocks of 256.
    Q5_K,
    /// 6 bits, super-blocks of 256.
    Q6_K,
}

/// Name of a format that exists but is not decoded here, or its number.
pub(super) fn unsupported_name(code: u32) -> String {
    let name = match code {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("type number {code}"),
    };
    name.to_string()
}

impl BlockType {
    /// The format of a type number, if it is decoded here.
    pub fn from_code(code: u32) -> Option<BlockType> {
        Some(match code {
            0 => BlockType::F32,
            1 => BlockType::F16,
            2 => BlockType::Q4_0,
            3 => BlockType::Q4_1,
            6 => BlockType::Q5_0,
            7 => BlockType::Q5_1,
            8 => BlockType::Q8_0,
            12 => BlockType::Q4_K,
            13 => BlockType::Q5_K,
            14 => BlockType::Q6_K,
            30 => BlockType::BF16,
            _ => return None,
        })
    }

    /// Numbers in one block.
    pub fn elements(self) -> usize {
        match self {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => 1,
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 => 32,
            BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        match self {
            BlockType::F32 => 4,
            BlockType::F16 | BlockType::BF16 => 2,
            BlockType::Q4_0 => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q4_K => 144,
            BlockType::Q5_K => 176,
            BlockType::Q6_K => 210,
        }
    }

    /// Decodes a whole number of blocks; bytes beyond the last whole block are not read.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let mut out = vec![0.0f32; bytes.len() / self.bytes() * self.elements()];
        self.decode_into(bytes, &mut out);
        out
    }

    /// [`BlockType::decode`] into `out`, which has room for the whole blocks.
    pub fn decode_into(self, bytes: &[u8], out: &mut [f32]) {
        // 8192 numbers a task: long enough to hide the cost of a task, short enough to share one tensor among many cores.
        const TASK: usize = 8192;
        let blocks_per_task = TASK / self.elements();
        out.par_chunks_mut(TASK).zip(bytes.par_chunks(blocks_per_task * self.bytes())).for_each(|(out, bytes)| {
            for (out, block) in out.chunks_exact_mut(self.elements()).zip(bytes.chunks_exact(self.bytes())) {
                self.decode_block(block, out);
            }
        });
    }

    fn decode_block(self, block: &[u8], out: &mut [f32]) {
        match self {
            BlockType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            BlockType::F16 => out[0] = half_at(block, 0),
            BlockType::BF16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            BlockType::Q4_0 => nibbles(&block[2..], out, |q| (i32::from(q) - 8) as f32 * half_at(block, 0)),
            BlockType::Q4_1 => {
                let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
                nibbles(&block[4..], out, |q| f32::from(q) * scale + minimum);
            }
            BlockType::Q5_0 => {
                let scale = half_at(block, 0);
                fives(&block[2..6], &block[6..], out, |q| (i32::from(q) - 16) as f32 * scale);
            }
            BlockType::Q5_1 => {
                let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
                fives(&block[4..8], &block[8..], out, |q| f32::from(q) * scale + minimum);
            }
            BlockType::Q8_0 => {
                let scale = half_at(block, 0);
                out.iter_mut().zip(&block[2..]).for_each(|(out, &q)| *out = f32::from(q as i8) * scale);
            }
            BlockType::Q4_K => q4_k(block, out),
            BlockType::Q5_K => q5_k(block, out),
            BlockType::Q6_K => q6_k(block, out),
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Low nibbles are the first half of the block, high nibbles the second.
fn nibbles(quants: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (first, second) = out.split_at_mut(16);
    for ((&q, first), second) in quants.iter().zip(first).zip(second) {
        *first = value(q & 15);
        *second = value(q >> 4);
    }
}

/// As [`nibbles`], with the fifth bits in `high`.
fn fives(high: &[u8], quants: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let fifth = |bit: usize| (((high >> bit) & 1) << 4) as u8;
    for (index, &q) in quants.iter().enumerate() {
        out[index] = value(q & 15 | fifth(index));
        out[index + 16] = value(q >> 4 | fifth(index + 16));
    }
}

/// Six-bit scale and minimum of sub-block `index` (0..8), packed into 12 bytes.
pub(super) fn scale_and_minimum(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = match index {
        0..4 => (packed[index] & 63, packed[index + 4] & 63),
        _ => {
            (packed[index + 4] & 15 | (packed[index - 4] >> 6) << 4, packed[index + 4] >> 4 | (packed[index] >> 6) << 4)
        }
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, d_minimum) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(packed, sub);
        let (scale, minimum) = (d * scale, d_minimum * minimum);
        let (quants, shift) = (&quants[sub / 2 * 32..][..32], sub % 2 * 4);
        out.iter_mut().zip(quants).for_each(|(out, &q)| *out = scale * f32::from(q >> shift & 15) - minimum);
    }
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, d_minimum) = (half_at(block, 0), half_at(block, 2));
    let (packed, high, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(packed, sub);
        let (scale, minimum) = (d * scale, d_minimum * minimum);
        let (quants, shift) = (&quants[sub / 2 * 32..][..32], sub % 2 * 4);
        for ((out, &q), &high) in out.iter_mut().zip(quants).zip(high) {
            let q = q >> shift & 15 | (high >> sub & 1) << 4;
            *out = scale * f32::from(q) - minimum;
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (index, out) in out.iter_mut().enumerate() {
        // Each half of 128 numbers: 64 bytes of low nibbles, 32 of high bit pairs; quarters of 32 numbers.
        let (half, within) = (index / 128, index % 128);
        let (quarter, column) = (within / 32, within % 32);
        let low = low[half * 64 + quarter % 2 * 32 + column] >> (quarter / 2 * 4) & 15;
        let high = high[half * 32 + column] >> (quarter * 2) & 3;
        let q = i32::from(low | high << 4) - 32;
        *out = d * f32::from(scales[index / 16] as i8) * q as f32;
    }
}
