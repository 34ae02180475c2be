//! Encodes f32 to GGML block formats, in parallel: the counterpart of `blocks`.
//!
//! In:    numbers, a whole number of blocks, all finite.
//! Out:   the bytes that ggml's reference quantizers (`quantize_row_*_ref`, no importance matrix) give for them.
//! Never: looks beyond one block; rounds a value that the format can hold.
//!
//! Arithmetic: `ggml-quants.c`; where its result hangs on the compiler's use of fused multiply-add, the `gguf` package's
//! `quants.py`. Checked by `simple_formats_are_encoded_bit_for_bit_like_the_gguf_package` and tests/peers/gguf_elsewhere.py.

use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::BlockType;
use super::k_quants;

impl BlockType {
    /// The type number of the format.
    pub fn code(self) -> u32 {
        match self {
            BlockType::F32 => 0,
            BlockType::F16 => 1,
            BlockType::Q4_0 => 2,
            BlockType::Q4_1 => 3,
            BlockType::Q5_0 => 6,
            BlockType::Q5_1 => 7,
            BlockType::Q8_0 => 8,
            BlockType::Q4_K => 12,
            BlockType::Q5_K => 13,
            BlockType::Q6_K => 14,
            BlockType::BF16 => 30,
        }
    }

    /// Encodes a whole number of blocks.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        let mut out = vec![0u8; values.len() / self.elements() * self.bytes()];
        self.encode_into(values, &mut out);
        out
    }

    /// [`BlockType::encode`] into `out`.
    ///
    /// # Panics
    /// If `values` is not a whole number of blocks or `out` has not their size: shapes are checked before.
    pub fn encode_into(self, values: &[f32], out: &mut [u8]) {
        assert_eq!(values.len() % self.elements(), 0, "{} values are no whole blocks of {self:?}", values.len());
        assert_eq!(out.len(), values.len() / self.elements() * self.bytes(), "room for other values of {self:?}");
        // As in decoding: long enough to hide the cost of a task.
        const TASK: usize = 8192;
        let bytes_per_task = TASK / self.elements() * self.bytes();
        out.par_chunks_mut(bytes_per_task).zip(values.par_chunks(TASK)).for_each(|(out, values)| {
            for (out, values) in out.chunks_exact_mut(self.bytes()).zip(values.chunks_exact(self.elements())) {
                self.encode_block(values, out);
            }
        });
    }

    fn encode_block(self, values: &[f32], out: &mut [u8]) {
        match self {
            BlockType::F32 => out.copy_from_slice(&values[0].to_le_bytes()),
            BlockType::F16 => out.copy_from_slice(&f16::from_f32(values[0]).to_le_bytes()),
            BlockType::BF16 => out.copy_from_slice(&bf16::from_f32(values[0]).to_le_bytes()),
            BlockType::Q4_0 => {
                let scale = scale_of_extreme(values, 8.0);
                put_half(out, 0, scale);
                // In f64: in f32 the last bit depends on whether a compiler fuses product and sum.
                let inverse = f64::from(inverse(scale));
                put_nibbles(&mut out[2..], &cut(values, 15, |value| (f64::from(value) * inverse + 8.5) as u8));
            }
            BlockType::Q5_0 => {
                let scale = scale_of_extreme(values, 16.0);
                put_half(out, 0, scale);
                let inverse = inverse(scale);
                put_fives(&mut out[2..], &cut(values, 31, |value| (value * inverse + 16.5) as u8));
            }
            BlockType::Q4_1 => {
                let quants = with_minimum(values, 15, out);
                put_nibbles(&mut out[4..], &quants);
            }
            BlockType::Q5_1 => {
                let quants = with_minimum(values, 31, out);
                put_fives(&mut out[4..], &quants);
            }
            BlockType::Q8_0 => q8_0(values, out),
            BlockType::Q4_K => k_quants::q4_k(values, out),
            BlockType::Q5_K => k_quants::q5_k(values, out),
            BlockType::Q6_K => k_quants::q6_k(values, out),
        }
    }
}

pub(super) fn put_half(out: &mut [u8], at: usize, value: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The value of largest magnitude (the first of equals) becomes `-levels`.
fn scale_of_extreme(values: &[f32], levels: f32) -> f32 {
    let mut extreme = 0.0f32;
    for &value in values {
        if value.abs() > extreme.abs() {
            extreme = value;
        }
    }
    extreme / -levels
}

/// The quant of every value, not above `highest`.
fn cut(values: &[f32], highest: u8, quant: impl Fn(f32) -> u8) -> [u8; 32] {
    let mut quants = [0; 32];
    quants.iter_mut().zip(values).for_each(|(out, &value)| *out = quant(value).min(highest));
    quants
}

/// Writes scale and minimum; the smallest value becomes 0, the largest `highest`.
fn with_minimum(values: &[f32], highest: u8, out: &mut [u8]) -> [u8; 32] {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = (high - low) / f32::from(highest);
    let inverse = inverse(scale);
    put_half(out, 0, scale);
    put_half(out, 2, low);
    cut(values, highest, |value| ((value - low) * inverse + 0.5) as u8)
}

fn q8_0(values: &[f32], out: &mut [u8]) {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    put_half(out, 0, scale);
    for (out, &value) in out[2..].iter_mut().zip(values) {
        *out = (value * inverse).round() as i8 as u8;
    }
}

/// The first half of the block in low nibbles, the second in high ones.
fn put_nibbles(out: &mut [u8], quants: &[u8; 32]) {
    for (index, out) in out.iter_mut().enumerate() {
        *out = quants[index] & 15 | quants[index + 16] << 4;
    }
}

/// Fifth bits in four bytes, then [`put_nibbles`].
fn put_fives(out: &mut [u8], quants: &[u8; 32]) {
    let fifths = quants.iter().enumerate().fold(0u32, |bits, (index, &quant)| bits | u32::from(quant >> 4) << index);
    out[..4].copy_from_slice(&fifths.to_le_bytes());
    put_nibbles(&mut out[4..], quants);
}
