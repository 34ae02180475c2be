//! bf16 products with an f32 result on x86: gemmkit's public entries round to bf16, its driver need not.
//!
//! In:    bf16 operands as stored, an f32 sum.
//! Out:   the sum with the product added, accumulated in f32.
//! Never: widens an operand in memory.

use std::cell::Cell;

use gemmkit::kernel::{Bf16DotGemmF32, KernelFamily};
use gemmkit::simd::{Avx512Bf16, KernelSimd};
use gemmkit::{Workspace, driver};
use half::bf16;

use super::{Operand, threads};

thread_local! {
    static WORKSPACE: Cell<Workspace> = const { Cell::new(Workspace::new()) };
}

/// Whether this machine multiplies bf16 pairs (`vdpbf16ps`), at twice the rate of f32. Without it, f32 products of
/// widened rows are as fast as widening on load.
pub(super) fn has_dot_product() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// `sum += leftᵀ right`. The tile (registers by columns) is that of gemmkit's own dispatch.
///
/// # Panics
/// If the machine has no bf16 dot product.
pub(super) fn add_outer(left: Operand<'_, bf16>, right: Operand<'_, bf16>, sum: &mut [f32]) {
    assert!(has_dot_product(), "asked for before");
    // SAFETY: the instructions were just found; `Scalar::add_outer`, the only way here, checked the sizes.
    unsafe { drive::<Bf16DotGemmF32, Avx512Bf16, 2, 12>(Avx512Bf16, left, right, sum) }
}

/// The product in gemmkit's driver. It wants a column-major result, so it computes the transpose, `rightᵀ left`.
///
/// # Safety
/// The machine has the instructions that `simd` stands for; `left` is `[t, o]`, `right` `[t, i]`, both as stored, `sum`
/// holds `o` times `i` values, and none of `t`, `o`, `i` is 0.
pub(super) unsafe fn drive<Family, S, const REGISTERS: usize, const COLUMNS: usize>(
    simd: S,
    left: Operand<'_, bf16>,
    right: Operand<'_, bf16>,
    sum: &mut [f32],
) where
    Family: KernelFamily<Lhs = bf16, Rhs = bf16, Acc = f32, Out = f32>,
    S: KernelSimd<bf16, bf16, f32, f32>,
{
    // Taken out, not borrowed: a thread that waits for others may start a second product meanwhile.
    let mut workspace = WORKSPACE.replace(Workspace::new());
    let (tokens, outputs, inputs) = (left.rows, left.columns, right.columns);
    let (right_start, left_start, sum_start) = (right.data.as_ptr(), left.data.as_ptr(), sum.as_mut_ptr());
    let (row_right, row_left) = (inputs as isize, outputs as isize);
    // SAFETY: `Operand::new` checked that the slices hold the matrices these sizes and strides address, the caller
    // that `sum` does; `sum` is initialised and borrowed exclusively, so it overlaps neither.
    unsafe {
        driver::run::<Family, S, REGISTERS, COLUMNS>(
            simd,
            inputs,
            tokens,
            outputs,
            1.0,
            right_start,
            1,
            row_right,
            left_start,
            row_left,
            1,
            1.0,
            sum_start,
            1,
            row_right,
            threads(),
            &mut workspace,
        );
    }
    WORKSPACE.set(workspace);
}
