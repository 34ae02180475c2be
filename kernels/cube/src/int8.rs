//! 8-bit integers with a scale for each block of 64, decoded to numbers.
//!
//! In:    the buffer of `kernels::int8`, as it is: codes, scales.
//! Out:   the matrix as numbers.
//! Never: decodes otherwise than the processor's kernel: one product in f32, rounded once.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, UNITS, cover, launch};

/// Codes in a word of 32 bits.
const CODES: usize = 4;

/// A unit decodes the four numbers of a word.
#[cube(launch, create_dummy_kernel)]
fn decode_bytes<F: Float>(packed: &[u32], out: &mut [F], scales_word: usize, #[define(F)] _number: ElemType) {
    let word = ABSOLUTE_POS;
    if word * 4usize >= out.len() {
        terminate!();
    }
    let scale = f32::reinterpret(packed[scales_word + word / 16usize]);
    let codes = packed[word];
    for at in 0..4usize {
        let code = (codes >> u32::cast_from(at * 8usize)) & 255u32;
        // Two's complement: from 128 on a code stands for itself less 256.
        let sign = f32::cast_from(code / 128u32) * 256.0f32;
        if word * 4usize + at < out.len() {
            out[word * 4usize + at] = F::cast_from((f32::cast_from(code) - sign) * scale);
        }
    }
}

/// All of a matrix's numbers; `packed` is its whole buffer in words, the scales begin at byte `scales_at`.
pub fn decode_int8(client: &Client, packed: &Buffer, elements: usize, scales_at: usize, number: Number) -> Buffer {
    let out = Buffer::empty(client, elements, number);
    if elements > 0 {
        let (cube, scales) = (CubeDim::new_1d(UNITS), scales_at / 4);
        launch!(client, decode_bytes, cover(elements.div_ceil(CODES)), cube, packed, out, scales, number.element());
    }
    out
}
