//! f32 numbers in the formats that files keep them in.
//!
//! In:    f32 values and the format of the file.
//! Out:   their bytes, rounded to nearest even; or the first number that the format cannot hold.
//! Never: writes an infinity for a number that was finite, or anything that is not a number.

use std::cell::RefCell;

use half::{bf16, f16};

use crate::stream::{Fill, Format, SourceError};

/// A number that the chosen format cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("element {at} is {value:e}, which {format} cannot hold ({bound}); {hint}")]
pub struct OutOfRange {
    /// Position in the tensor, row-major.
    pub at: u64,
    /// The number.
    pub value: f32,
    /// The format's name.
    format: &'static str,
    bound: &'static str,
    hint: &'static str,
}

impl OutOfRange {
    fn new(at: u64, value: f32, format: Format) -> OutOfRange {
        let (bound, hint) = match (value.is_finite(), format) {
            (false, _) => ("it is not a finite number", "the trained weights are damaged: take an earlier checkpoint"),
            (true, Format::F16) => ("its largest is 65504", "take bf16 or f32"),
            (true, _) => ("its largest is 3.39e38", "take f32"),
        };
        OutOfRange { at, value, format: format.name(), bound, hint }
    }
}

/// Rounds `values` into `out`, whose length fits. `first` is the position of the first in its tensor, for the error.
///
/// # Panics
/// If `format` holds codes, not numbers: our bug.
pub fn narrow(values: &[f32], first: u64, format: Format, out: &mut [u8]) -> Result<(), OutOfRange> {
    assert_eq!(out.len() as u64, values.len() as u64 * format.bytes(), "bytes of {} numbers", values.len());
    let refused = |at: usize| OutOfRange::new(first + at as u64, values[at], format);
    let mut wrong = None;
    let mut check = |at: usize, fits: bool| {
        if !fits {
            wrong.get_or_insert(at);
        }
    };
    match format {
        Format::F32 => {
            for (at, (value, bytes)) in values.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
                check(at, value.is_finite());
                *bytes = value.to_le_bytes();
            }
        }
        Format::Bf16 => {
            for (at, (value, bytes)) in values.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
                let rounded = bf16::from_f32(*value);
                check(at, rounded.is_finite());
                *bytes = rounded.to_le_bytes();
            }
        }
        Format::F16 => {
            for (at, (value, bytes)) in values.iter().zip(out.as_chunks_mut::<2>().0).enumerate() {
                let rounded = f16::from_f32(*value);
                check(at, rounded.is_finite());
                *bytes = rounded.to_le_bytes();
            }
        }
        Format::U8 => unreachable!("codes are not numbers"),
    }
    wrong.map_or(Ok(()), |at| Err(refused(at)))
}

/// `values` as a reader of the format gets them back.
///
/// # Panics
/// If `format` holds codes, not numbers: our bug.
pub fn round_trip(values: &mut [f32], format: Format) {
    match format {
        Format::F32 => {}
        Format::Bf16 => values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32()),
        Format::F16 => values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32()),
        Format::U8 => unreachable!("codes are not numbers"),
    }
}

/// A tensor that is had as a whole when its first piece is asked for, and forgotten after its last.
pub fn whole<'a>(format: Format, read: impl Fn() -> Result<Vec<f32>, SourceError> + 'a) -> Fill<'a> {
    let held = RefCell::new(Vec::new());
    Box::new(move |at, out| {
        let mut held = held.borrow_mut();
        if at == 0 {
            // The last tensor's memory goes first: two of them may be more than was planned.
            *held = Vec::new();
            *held = read()?;
        }
        let first = at / format.bytes();
        let end = first as usize + out.len() / format.bytes() as usize;
        narrow(&held[first as usize..end], first, format, out)?;
        if end == held.len() {
            *held = Vec::new();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even_and_reads_back_as_round_trip_says() {
        let values = [1.0f32, 1.003_906_2, 1.011_718_8, -65504.0, 1e-8, 0.0];
        for format in [Format::F32, Format::Bf16, Format::F16] {
            let mut bytes = vec![0; values.len() * format.bytes() as usize];
            narrow(&values, 0, format, &mut bytes).unwrap();
            let read: Vec<f32> = match format {
                Format::F32 => bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect(),
                Format::Bf16 => bytes.as_chunks().0.iter().map(|&word| bf16::from_le_bytes(word).to_f32()).collect(),
                _ => bytes.as_chunks().0.iter().map(|&word| f16::from_le_bytes(word).to_f32()).collect(),
            };
            let mut expected = values;
            round_trip(&mut expected, format);
            assert_eq!(read, expected, "{format:?}");
        }
    }

    #[test]
    fn what_f16_cannot_hold_is_refused_with_its_place_and_value() {
        let mut out = [0; 6];
        // 65519.996 rounds to 65504; 65520 would round to infinity.
        narrow(&[65519.0, -65519.0, 0.0], 7, Format::F16, &mut out).unwrap();
        let error = narrow(&[0.0, 65520.0, 1e9], 7, Format::F16, &mut out).unwrap_err();
        assert_eq!((error.at, error.value), (8, 65520.0));
        let text = error.to_string();
        assert!(text.contains("element 8") && text.contains("65504") && text.contains("bf16"), "{text}");
        narrow(&[65520.0], 0, Format::Bf16, &mut out[..2]).unwrap();
    }

    #[test]
    fn what_is_not_a_number_is_refused_in_every_format() {
        for format in [Format::F32, Format::Bf16, Format::F16] {
            for value in [f32::NAN, f32::INFINITY] {
                let mut out = vec![0; format.bytes() as usize];
                assert!(narrow(&[value], 0, format, &mut out).unwrap_err().to_string().contains("not a finite number"));
            }
        }
    }

    #[test]
    fn a_whole_tensor_is_read_once_and_forgotten_after_its_last_piece() {
        let reads = std::cell::Cell::new(0);
        let fill = whole(Format::Bf16, || {
            reads.set(reads.get() + 1);
            Ok(vec![1.0, 2.0, 3.0])
        });
        let mut bytes = [0u8; 6];
        fill(0, &mut bytes[..4]).unwrap();
        fill(4, &mut bytes[4..]).unwrap();
        assert_eq!(reads.get(), 1);
        assert_eq!(bytes, [0x80, 0x3f, 0x00, 0x40, 0x40, 0x40]);
    }
}
