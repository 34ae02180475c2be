//! Gradients of weights: sums over tokens, always kept in f32.
//!
//! In:    contiguous Flex tensors in f32 or bf16.
//! Out:   f32 Flex tensors.
//! Never: sums in an order that depends on the number of threads.

use burn_flex::FlexTensor;

use super::{Stored, dropped, rows_columns, slice, tensor, vector};
use crate::cpu;
use crate::gemm::{Operand, add_outer_widened, product};
use crate::ops::Lora;

/// `dyᵀ x`, `[o, i]`.
pub(super) fn linear_dw<E: Stored>(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let ([tokens, inputs], [_, outputs]) = (rows_columns(x), rows_columns(dy));
    let mut sum = vec![0.0f32; outputs * inputs];
    E::add_outer(Operand::new(slice(dy), tokens, outputs), Operand::new(slice(x), tokens, inputs), &mut sum);
    tensor(sum, [outputs, inputs])
}

/// `sum over t of dy * x * rstd`, `[d]`.
pub(super) fn rms_norm_dw<E: Stored>(x: &FlexTensor, rstd: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let mut sum = vec![0.0f32; rows_columns(x)[1]];
    cpu::rms_norm_weight_gradient(slice::<E>(x), slice(rstd), slice(dy), &mut sum);
    vector(sum)
}

/// Column sums, `[o]`.
pub(super) fn bias_gradient<E: Stored>(dy: &FlexTensor) -> FlexTensor {
    let mut sum = vec![0.0f32; rows_columns(dy)[1]];
    cpu::column_sums(slice::<E>(dy), &mut sum);
    vector(sum)
}

/// `scale * leftᵀ right` summed in f32 over tokens, `[left columns, right columns]`.
fn outer<E: Stored>(scale: f32, left: (&[E], usize), right: (&[E], usize)) -> FlexTensor {
    let shape = [left.1, right.1];
    let mut sum = vec![0.0f32; shape[0] * shape[1]];
    add_outer_widened(scale, left, right, &mut sum);
    tensor(sum, shape)
}

/// [`outer`] where nothing has to be widened.
fn outer_f32(scale: f32, left: (&[f32], usize), right: (&[f32], usize)) -> FlexTensor {
    let ((left, rows), (right, columns)) = (left, right);
    let tokens = left.len() / rows;
    let sum = product(scale, Operand::new(left, tokens, rows).t(), Operand::new(right, tokens, columns));
    tensor(sum, [rows, columns])
}

pub(super) fn lora_da<E: Stored>(du: &FlexTensor, x: &FlexTensor, lora: Lora) -> FlexTensor {
    let ([_, rank], [_, inputs]) = (rows_columns(du), rows_columns(x));
    let (du, x) = (slice::<E>(du), slice::<E>(x));
    let x_dropped = dropped(x, lora.dropout);
    let x = x_dropped.as_deref().unwrap_or(x);
    match (bytemuck::try_cast_slice(du), bytemuck::try_cast_slice(x)) {
        (Ok(du), Ok(x)) if size_of::<E>() == 4 => outer_f32(1.0, (du, rank), (x, inputs)),
        _ => outer(1.0, (du, rank), (x, inputs)),
    }
}

pub(super) fn lora_db<E: Stored>(dy: &FlexTensor, u: &FlexTensor, lora: Lora) -> FlexTensor {
    let ([_, outputs], [_, rank]) = (rows_columns(dy), rows_columns(u));
    let (dy, u) = (slice::<E>(dy), slice::<E>(u));
    match (bytemuck::try_cast_slice(dy), bytemuck::try_cast_slice(u)) {
        (Ok(dy), Ok(u)) if size_of::<E>() == 4 => outer_f32(lora.scale, (dy, outputs), (u, rank)),
        _ => outer(lora.scale, (dy, outputs), (u, rank)),
    }
}
