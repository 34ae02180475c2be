//! Formats of few bits that a frozen matrix may be kept in.
//!
//! In:    a matrix of f32 numbers, or the buffer it became.
//! Out:   the buffer; numbers of any range of it again.
//! Never: knows how a format works: that is [`crate::nf4`] and [`crate::int8`].

use crate::cpu::Element;
use crate::nf4::NotFinite;
use crate::{int8, nf4};

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackedFormat {
    /// 4-bit NormalFloat with doubly quantised scales.
    Nf4,
    /// 8-bit integers with a scale for each block.
    Int8,
}

impl PackedFormat {
    /// Bytes of a matrix with so many numbers.
    pub fn bytes(self, elements: usize) -> usize {
        match self {
            PackedFormat::Nf4 => nf4::Layout::of(elements).bytes(),
            PackedFormat::Int8 => int8::bytes(elements),
        }
    }

    /// The matrix as one buffer.
    ///
    /// # Errors
    /// [`NotFinite`] names a number that no scale reaches.
    pub fn quantise(self, values: &[f32]) -> Result<Vec<u8>, NotFinite> {
        match self {
            PackedFormat::Nf4 => nf4::quantise(values),
            PackedFormat::Int8 => int8::quantise(values),
        }
    }

    /// The view of a matrix with so many numbers.
    ///
    /// # Panics
    /// If the buffer has another size than [`PackedFormat::bytes`] says: our bug.
    pub fn view(self, buffer: &[u8], elements: usize) -> PackedView<'_> {
        match self {
            PackedFormat::Nf4 => PackedView::Nf4(nf4::Packed::new(buffer, elements)),
            PackedFormat::Int8 => PackedView::Int8(int8::Packed::new(buffer, elements)),
        }
    }
}

/// A quantised matrix on the host.
#[derive(Debug, Clone, Copy)]
pub enum PackedView<'a> {
    /// [`PackedFormat::Nf4`]
    Nf4(nf4::Packed<'a>),
    /// [`PackedFormat::Int8`]
    Int8(int8::Packed<'a>),
}

impl PackedView<'_> {
    /// The numbers from `first` on, as many as `out` takes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn decode<E: Element>(&self, first: usize, out: &mut [E]) {
        match self {
            PackedView::Nf4(packed) => packed.decode(first, out),
            PackedView::Int8(packed) => packed.decode(first, out),
        }
    }
}
