//! 8-bit integers with a scale for each block: a frozen base at half of bf16's bytes, where 4 bits are too coarse.
//!
//! In:    a matrix of f32 numbers, row-major.
//! Out:   one buffer: codes, scales; numbers of any range of it again.
//! Never: takes a number that is not finite; uses the code -128, so that both signs reach as far.
//!
//! Blocks of 64 numbers share an f32 scale, their largest magnitude over 127: 1.0625 bytes a number, as GGUF's Q8_0 with blocks of 32 and
//! f16 scales. Source: Dettmers et al. 2022, arXiv:2208.07339, section 2 (absmax quantisation), block by block.

use rayon::prelude::*;

use crate::cpu::Element;
use crate::nf4::{ALIGNMENT, BLOCK, NotFinite, float, magnitude};

/// The largest code.
const LARGEST: f32 = 127.0;

/// Bytes of the buffer of a matrix with so many numbers.
pub fn bytes(elements: usize) -> usize {
    (scales_at(elements) + elements.div_ceil(BLOCK) * 4).next_multiple_of(ALIGNMENT)
}

/// Where the scales begin, bytes.
pub(crate) fn scales_at(elements: usize) -> usize {
    elements.next_multiple_of(ALIGNMENT)
}

/// Quantises a matrix, on all of rayon's threads.
pub fn quantise(values: &[f32]) -> Result<Vec<u8>, NotFinite> {
    let mut buffer = vec![0u8; bytes(values.len())];
    let (codes, scales) = buffer.split_at_mut(scales_at(values.len()));
    let blocks = values.par_chunks(BLOCK).zip(codes.par_chunks_mut(BLOCK)).zip(scales.par_chunks_mut(4));
    blocks.for_each(|((numbers, codes), scale)| {
        let of_block = magnitude(numbers) / LARGEST;
        let inverse = if of_block > 0.0 { 1.0 / of_block } else { 0.0 };
        codes.iter_mut().zip(numbers).for_each(|(code, number)| {
            *code = (number * inverse).round_ties_even().clamp(-LARGEST, LARGEST) as i8 as u8;
        });
        scale.copy_from_slice(&of_block.to_le_bytes());
    });
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(NotFinite { at, value: values[at] }),
        None => Ok(buffer),
    }
}

/// A quantised matrix on the host: a view of its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
}

impl<'a> Packed<'a> {
    /// The view of a matrix with so many numbers.
    ///
    /// # Panics
    /// If the buffer has another size than [`bytes`] says: our bug.
    pub fn new(buffer: &'a [u8], elements: usize) -> Packed<'a> {
        assert_eq!(buffer.len(), bytes(elements), "bytes of {elements} numbers in 8 bits");
        Packed { codes: &buffer[..elements], scales: &buffer[scales_at(elements)..] }
    }

    /// The numbers from `first` on, as many as `out` takes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn decode<E: Element>(&self, first: usize, out: &mut [E]) {
        let (mut at, mut rest) = (first, out);
        while !rest.is_empty() {
            let len = (BLOCK - at % BLOCK).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            let scale = float(&self.scales[at / BLOCK * 4..][..4]);
            let codes = &self.codes[at..at + len];
            now.iter_mut().zip(codes).for_each(|(number, &code)| *number = E::from_f32(f32::from(code as i8) * scale));
            (at, rest) = (at + len, later);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::Values;

    fn decoded(values: &[f32]) -> Vec<f32> {
        let buffer = quantise(values).unwrap();
        let mut out = vec![9.0f32; values.len()];
        Packed::new(&buffer, values.len()).decode(0, &mut out);
        out
    }

    #[test]
    fn every_number_is_the_nearest_multiple_of_its_blocks_scale() {
        let mut random = Values(3);
        for elements in [1, 63, 64, 65, 1000, 4096] {
            let values: Vec<f32> = (0..elements).map(|at| random.next() * (1 + at / 64) as f32).collect();
            for (block, out) in values.chunks(BLOCK).zip(decoded(&values).chunks(BLOCK)) {
                let scale = block.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
                for (value, out) in block.iter().zip(out) {
                    assert!((value - out).abs() <= scale * 0.5001, "{value} became {out} with scale {scale}");
                }
            }
        }
    }

    #[test]
    fn what_was_decoded_stays_as_it_is_and_a_range_is_a_part_of_the_whole() {
        let values: Vec<f32> = (0..777).map(|at| ((at * 37) % 101) as f32 - 50.0).collect();
        let once = decoded(&values);
        assert_eq!(decoded(&once), once);
        let buffer = quantise(&values).unwrap();
        for (first, len) in [(0, 1), (63, 2), (100, 677), (776, 1)] {
            let mut part = vec![0.0f32; len];
            Packed::new(&buffer, 777).decode(first, &mut part);
            assert_eq!(part, once[first..first + len]);
        }
    }

    #[test]
    fn zeros_stay_and_what_is_not_finite_is_refused() {
        assert_eq!(decoded(&[0.0; 70]), [0.0; 70]);
        assert_eq!(decoded(&[]), [0.0f32; 0]);
        let refused = quantise(&[1.0, f32::INFINITY]).unwrap_err();
        assert_eq!((refused.at, refused.value), (1, f32::INFINITY));
        assert_eq!(quantise(&[f32::NAN]).unwrap_err().at, 0);
    }

    #[test]
    fn a_number_takes_17_sixteenths_of_a_byte() {
        assert_eq!(bytes(1 << 20), (1 << 20) + (1 << 16));
    }
}
