//! 4-bit NormalFloat with doubly quantised scales, as QLoRA keeps a frozen base.
//!
//! In:    a matrix of f32 numbers, row-major.
//! Out:   one buffer: codes, scales, the scales' own scales; numbers of any range of it again.
//! Never: takes a number that is not finite; rounds a code otherwise than to the nearest.
//!
//! Blocks of 64 numbers share a scale, their largest magnitude; of the scales less their mean, groups of 256 share a scale of their own and
//! are kept in 8 bits: 4.127 bits a number. Codes, packing (the earlier number in the upper half of a byte), scales and their groups are
//! those of bitsandbytes 0.50 with `compress_statistics`, as its reference and CUDA kernels compute them; its CPU library finds 8-bit codes
//! through a table that misses the nearest one in about 2 of 1000 scales. The mean is summed in f64 and rounded once.
//!
//! Source: Dettmers et al. 2023, arXiv:2305.14314, sections 2 and 3, appendix E; 8-bit codes: Dettmers et al. 2021, arXiv:2110.02861.

use std::ops::Range;
use std::sync::LazyLock;

use rayon::prelude::*;

use crate::cpu::Element;

/// Numbers that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a scale.
const GROUP: usize = 256;
/// Parts of the buffer begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 16;
/// What an absolute maximum of zero is divided by instead.
const SMALLEST: f32 = 1e-38;

/// The 16 numbers: quantiles of a normal distribution, with an exact 0 and both ends at 1.
pub const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The 8-bit numbers of scales, ascending.
static SCALES: LazyLock<[f32; 256]> = LazyLock::new(scale_codes);

/// Why a matrix could not be quantised.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("number {at} is {value}; quantised weights must be finite")]
pub struct NotFinite {
    /// Its place, row-major.
    pub at: usize,
    /// The number.
    pub value: f32,
}

/// Where the parts of a quantised matrix stand in its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    scales: Range<usize>,
    groups: Range<usize>,
    mean: Range<usize>,
}

impl Layout {
    /// Of a matrix with so many numbers.
    pub fn of(elements: usize) -> Layout {
        let after = |end: usize, len: usize| {
            let start = end.next_multiple_of(ALIGNMENT);
            start..start + len
        };
        let blocks = elements.div_ceil(BLOCK);
        let scales = after(elements.div_ceil(2), blocks);
        let groups = after(scales.end, blocks.div_ceil(GROUP) * 4);
        let mean = groups.end..groups.end + 4;
        Layout { scales, groups, mean }
    }

    /// Where scales, groups and mean begin, bytes.
    #[cfg(feature = "card")]
    pub(crate) fn starts(&self) -> [usize; 3] {
        [&self.scales, &self.groups, &self.mean].map(|part| part.start)
    }

    /// Bytes of the buffer.
    pub fn bytes(&self) -> usize {
        self.mean.end.next_multiple_of(ALIGNMENT)
    }
}

/// The 16 numbers of the codes and the 256 of the scales.
#[cfg(feature = "card")]
pub(crate) fn tables() -> Vec<f32> {
    [&CODE[..], &SCALES[..]].concat()
}

/// A quantised matrix on the host: a view of its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
    groups: &'a [u8],
    mean: f32,
    elements: usize,
}

impl<'a> Packed<'a> {
    /// The view of a matrix with so many numbers.
    ///
    /// # Panics
    /// If the buffer has another size than [`Layout::bytes`] says: our bug.
    pub fn new(buffer: &'a [u8], elements: usize) -> Packed<'a> {
        let layout = Layout::of(elements);
        assert_eq!(buffer.len(), layout.bytes(), "bytes of {elements} numbers in 4 bits");
        Packed {
            codes: &buffer[..elements.div_ceil(2)],
            scales: &buffer[layout.scales],
            groups: &buffer[layout.groups],
            mean: float(&buffer[layout.mean]),
            elements,
        }
    }

    /// Two codes a byte.
    pub fn codes(&self) -> &'a [u8] {
        self.codes
    }

    /// 8-bit codes of the scales, one a block.
    pub fn scale_codes(&self) -> &'a [u8] {
        self.scales
    }

    /// The scales' scales, one a group.
    pub fn groups(&self) -> Vec<f32> {
        self.groups.chunks_exact(4).map(float).collect()
    }

    /// What was subtracted from every scale.
    pub fn mean(&self) -> f32 {
        self.mean
    }

    /// The scale of a block.
    fn scale(&self, block: usize, codes: &[f32; 256]) -> f32 {
        let group = block / GROUP * 4;
        codes[self.scales[block] as usize] * float(&self.groups[group..group + 4]) + self.mean
    }

    /// The numbers from `first` on, as many as `out` takes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn decode<E: Element>(&self, first: usize, out: &mut [E]) {
        assert!(first + out.len() <= self.elements, "numbers past the end of a matrix");
        let scales: &[f32; 256] = &SCALES;
        let (mut at, mut rest) = (first, out);
        while !rest.is_empty() {
            let len = (BLOCK - at % BLOCK).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            let scale = self.scale(at / BLOCK, scales);
            let table = CODE.map(|code| E::from_f32(code * scale));
            decode_block(&self.codes[at / 2..], at % 2, &table, now);
            (at, rest) = (at + len, later);
        }
    }
}

/// The numbers of a part of a block whose first code is the lower half of its byte if `odd`.
fn decode_block<E: Element>(codes: &[u8], odd: usize, table: &[E; 16], out: &mut [E]) {
    let out = match (odd, out) {
        (1, [first, rest @ ..]) => {
            *first = table[(codes[0] & 15) as usize];
            rest
        }
        (_, out) => out,
    };
    let codes = &codes[odd..];
    let (pairs, last) = out.as_chunks_mut::<2>();
    for (pair, &code) in pairs.iter_mut().zip(codes) {
        *pair = [table[(code >> 4) as usize], table[(code & 15) as usize]];
    }
    if let [last] = last {
        *last = table[(codes[pairs.len()] >> 4) as usize];
    }
}

/// Quantises a matrix, on all of rayon's threads.
pub fn quantise(values: &[f32]) -> Result<Vec<u8>, NotFinite> {
    let mut maxima = vec![0.0f32; values.len().div_ceil(BLOCK)];
    let parts = values.par_chunks(BLOCK * GROUP).zip(maxima.par_chunks_mut(GROUP));
    parts.for_each(|(values, maxima)| {
        maxima.iter_mut().zip(values.chunks(BLOCK)).for_each(|(at, block)| *at = maximum(block, BLOCK));
    });
    // In order, whatever the threads: sums of floats depend on it.
    let sum: f64 = maxima.iter().map(|&maximum| f64::from(maximum)).sum();
    quantise_around(values, &maxima, (sum / maxima.len().max(1) as f64) as f32)
}

/// [`quantise`] with the mean of the scales as given.
pub(crate) fn quantise_around(values: &[f32], maxima: &[f32], mean: f32) -> Result<Vec<u8>, NotFinite> {
    let layout = Layout::of(values.len());
    let mut buffer = vec![0u8; layout.bytes()];
    let bounds = between(&CODE);
    let codes = buffer[..values.len().div_ceil(2)].par_chunks_mut(BLOCK * GROUP / 2);
    let parts = values.par_chunks(BLOCK * GROUP).zip(maxima.par_chunks(GROUP)).zip(codes);
    let all_finite = parts.map(|((values, maxima), codes)| {
        let blocks = values.chunks(BLOCK).zip(maxima).zip(codes.chunks_mut(BLOCK / 2));
        blocks.for_each(|((numbers, &maximum), codes)| code_block(numbers, maximum, &bounds, codes));
        values.iter().fold(true, |finite, value| finite & value.is_finite())
    });
    if !all_finite.reduce(|| true, |one, other| one & other) {
        let at = values.iter().position(|value| !value.is_finite()).expect("one of them is not");
        return Err(NotFinite { at, value: values[at] });
    }
    let centred: Vec<f32> = maxima.iter().map(|maximum| maximum - mean).collect();
    let bounds = between(&SCALES);
    for (group, scales) in centred.chunks(GROUP).enumerate() {
        let maximum = maximum(scales, GROUP);
        let codes = &mut buffer[layout.scales.start + group * GROUP..];
        scaled(scales, maximum, GROUP, |at, number| {
            codes[at] = bounds.partition_point(|&bound| bound < number) as u8;
        });
        let at = layout.groups.start + group * 4;
        buffer[at..at + 4].copy_from_slice(&maximum.to_le_bytes());
    }
    buffer[layout.mean].copy_from_slice(&mean.to_le_bytes());
    Ok(buffer)
}

/// Two codes a byte of a block's numbers: how many of the midpoints each is above.
fn code_block(numbers: &[f32], maximum: f32, bounds: &[f32], codes: &mut [u8]) {
    let mut parts = [0.0f32; BLOCK];
    scaled(numbers, maximum, BLOCK, |at, part| parts[at] = part);
    let mut above = [0u8; BLOCK];
    for &bound in bounds {
        above.iter_mut().zip(&parts).for_each(|(above, &part)| *above += u8::from(part > bound));
    }
    for (at, code) in codes.iter_mut().enumerate() {
        let second = if 2 * at + 1 < numbers.len() { above[2 * at + 1] } else { 0 };
        *code = above[2 * at] << 4 | second;
    }
}

/// The largest magnitude.
pub(crate) fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// The scale of a block: its largest magnitude, and never 0 for one that is not full, as bitsandbytes stores it.
fn maximum(values: &[f32], full: usize) -> f32 {
    let largest = magnitude(values);
    if values.len() == full { largest } else { largest.max(SMALLEST) }
}

/// Hands each number, as a part of its block's maximum, to `each`. A block that is not full is divided, a full one multiplied by the
/// inverse: so does bitsandbytes, and last bits decide codes.
fn scaled(values: &[f32], maximum: f32, full: usize, mut each: impl FnMut(usize, f32)) {
    let maximum = maximum.max(SMALLEST);
    let inverse = 1.0 / maximum;
    for (at, &value) in values.iter().enumerate() {
        let part = if values.len() == full { value * inverse } else { value / maximum };
        each(at, part.clamp(-1.0, 1.0));
    }
}

/// The midpoints of neighbouring numbers.
fn between<const N: usize>(codes: &[f32; N]) -> Vec<f32> {
    codes.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect()
}

/// 7 decades of both signs, the finer steps in the larger ones, 0 and 1: bitsandbytes' `create_dynamic_map`.
fn scale_codes() -> [f32; 256] {
    const DECADES: i32 = 7;
    let mut codes = vec![0.0f32, 1.0];
    for decade in 0..DECADES {
        let parts = 1usize << decade;
        // Python's power of ten, in f64, is what scales each mean.
        let size = 10f64.powi(decade - (DECADES - 1)) as f32;
        let step = (1.0f32 - 0.1) / parts as f32;
        let points = parts + 1;
        // torch.linspace counts from both ends, each number rounded once.
        let point = |at: usize| match at < points / 2 {
            true => step.mul_add(at as f32, 0.1),
            false => (-step).mul_add((points - 1 - at) as f32, 1.0),
        };
        for at in 0..parts {
            let mean = (point(at) + point(at + 1)) / 2.0;
            codes.extend([size * mean, -size * mean]);
        }
    }
    codes.sort_by(f32::total_cmp);
    codes.try_into().expect("254 numbers of 7 decades, 0 and 1")
}

pub(crate) fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests;
