//! 4-bit NormalFloat with doubly quantised scales, decoded to numbers.
//!
//! In:    the buffer of `kernels::nf4`, as it is: codes, scales, the scales' scales, their mean.
//! Out:   any range of the matrix as numbers.
//! Never: decodes otherwise than the processor's kernel: the same products and sums in f32, rounded once.
//!
//! Source: Dettmers et al. 2023, arXiv:2305.14314, sections 2 and 3.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, UNITS, cover, launch};

/// Codes in a word of 32 bits.
const CODES: usize = 8;

/// A matrix in 4 bits on a device.
#[derive(Debug, Clone)]
pub struct Nf4 {
    /// The whole buffer, in words.
    pub packed: Buffer,
    /// The 16 numbers of the codes, then the 256 of the scales, f32.
    pub tables: Buffer,
    /// Numbers in the matrix.
    pub elements: usize,
    /// Where the scales begin, bytes.
    pub scales_at: usize,
    /// Where the scales' scales begin, bytes.
    pub groups_at: usize,
    /// Where the mean stands, bytes.
    pub mean_at: usize,
}

/// A unit decodes the eight numbers of a word. Blocks of 64 begin at words.
#[cube(launch, create_dummy_kernel)]
fn decode_words<F: Float>(
    packed: &[u32],
    tables: &[f32],
    out: &mut [F],
    first_word: usize,
    scales_word: usize,
    groups_word: usize,
    mean_word: usize,
    #[define(F)] _number: ElemType,
) {
    let unit = ABSOLUTE_POS;
    if unit * 8usize >= out.len() {
        terminate!();
    }
    let word = first_word + unit;
    let block = word / 8usize;
    let code = (packed[scales_word + block / 4usize] >> u32::cast_from(block % 4usize * 8usize)) & 255u32;
    let group = f32::reinterpret(packed[groups_word + block / 256usize]);
    let scale = tables[16usize + usize::cast_from(code)] * group + f32::reinterpret(packed[mean_word]);
    let codes = packed[word];
    for at in 0..8usize {
        // The earlier number is in the upper half of its byte.
        let shift = u32::cast_from(at / 2usize * 8usize + (1usize - at % 2usize) * 4usize);
        let number = tables[usize::cast_from((codes >> shift) & 15u32)] * scale;
        if unit * 8usize + at < out.len() {
            out[unit * 8usize + at] = F::cast_from(number);
        }
    }
}

/// `count` numbers from `first` on, which must be a multiple of 8.
///
/// # Panics
/// If the matrix has fewer, or `first` does not begin a word: our bug.
pub fn decode(client: &Client, matrix: &Nf4, first: usize, count: usize, number: Number) -> Buffer {
    assert!(first.is_multiple_of(CODES), "number {first} does not begin a word");
    assert!(first + count <= matrix.elements, "numbers past the end of a matrix");
    let out = Buffer::empty(client, count, number);
    if count > 0 {
        let word = |bytes: usize| bytes / 4;
        let (packed, tables, first) = (&matrix.packed, &matrix.tables, first / CODES);
        let [scales, groups, mean] = [matrix.scales_at, matrix.groups_at, matrix.mean_at].map(word);
        let cube = CubeDim::new_1d(UNITS);
        launch!(
            client,
            decode_words,
            cover(count.div_ceil(CODES)),
            cube,
            packed,
            tables,
            out,
            first,
            scales,
            groups,
            mean,
            number.element(),
        );
    }
    out
}
