//! Products with a layer's weight, in whichever format it is kept.
//!
//! In:    rows in the format of activations, a weight.
//! Out:   rows.
//! Never: holds more of a packed matrix as numbers than a panel of [`PANEL`].

use burn::backend::Flex;
use rayon::prelude::*;

use super::{Stored, contiguous, rows_columns, slice};
use crate::cpu::scratch::with_floats;
use crate::gemm::{Operand, product};
use crate::nf4::BLOCK;
use crate::weight::BackendWeight;

/// Numbers of a packed matrix that are decoded at once.
const PANEL: usize = 1 << 19;

/// `[outputs, inputs]`
pub(super) fn shape_of(w: &BackendWeight<Flex>) -> [usize; 2] {
    match w {
        BackendWeight::Dense(dense) => rows_columns(dense),
        BackendWeight::Packed { shape, .. } => *shape,
    }
}

/// `x wᵀ`
pub(super) fn forward<E: Stored>(x: Operand<'_, E>, w: &BackendWeight<Flex>) -> Vec<E> {
    let [outputs, inputs] = shape_of(w);
    match w {
        BackendWeight::Dense(dense) => product(1.0, x, Operand::new(slice(&contiguous(dense)), outputs, inputs).t()),
        BackendWeight::Packed { packed, format, .. } => {
            let packed = contiguous(packed);
            let packed = format.view(slice(&packed), outputs * inputs);
            let mut y = vec![E::default(); x.rows() * outputs];
            let rows = panel_width(inputs, outputs);
            for first in (0..outputs).step_by(rows) {
                let rows = rows.min(outputs - first);
                with_panel(rows * inputs, |panel: &mut [E]| {
                    let decode = |(row, out): (usize, &mut [E])| packed.decode((first + row) * inputs, out);
                    panel.par_chunks_mut(inputs.max(1)).enumerate().for_each(decode);
                    E::product_in(x, Operand::new(panel, rows, inputs).t(), &mut y, (first, outputs));
                });
            }
            y
        }
    }
}

/// `dy w`
pub(super) fn backward<E: Stored>(dy: Operand<'_, E>, w: &BackendWeight<Flex>) -> Vec<E> {
    let [outputs, inputs] = shape_of(w);
    match w {
        BackendWeight::Dense(dense) => product(1.0, dy, Operand::new(slice(&contiguous(dense)), outputs, inputs)),
        BackendWeight::Packed { packed, format, .. } => {
            let packed = contiguous(packed);
            let packed = format.view(slice(&packed), outputs * inputs);
            let mut dx = vec![E::default(); dy.rows() * inputs];
            let columns = panel_width(outputs, inputs);
            for first in (0..inputs).step_by(columns) {
                let columns = columns.min(inputs - first);
                with_panel(outputs * columns, |panel: &mut [E]| {
                    let decode = |(row, out): (usize, &mut [E])| packed.decode(row * inputs + first, out);
                    panel.par_chunks_mut(columns).enumerate().for_each(decode);
                    E::product_in(dy, Operand::new(panel, outputs, columns), &mut dx, (first, inputs));
                });
            }
            dx
        }
    }
}

/// Rows or columns of a panel whose other side has `length` numbers; whole blocks.
fn panel_width(length: usize, width: usize) -> usize {
    (PANEL / length.max(1) / BLOCK * BLOCK).clamp(BLOCK, width.max(BLOCK))
}

fn with_panel<E: Stored>(elements: usize, work: impl FnOnce(&mut [E])) {
    let floats = (elements * size_of::<E>()).div_ceil(size_of::<f32>());
    with_floats(floats, |buffer| work(&mut bytemuck::cast_slice_mut(buffer)[..elements]));
}
