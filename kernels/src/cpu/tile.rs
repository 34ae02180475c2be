//! Products of small f32 matrices that stay in cache: the inner step of attention.
//!
//! In:    a left operand with any two strides, a right operand with contiguous rows.
//! Out:   `C = A · B` or `C += A · B`; each element is one chain of fused multiply-adds over the depth in ascending order,
//!        so its bits depend neither on the block shape chosen for the machine nor on which operand stands left.
//! Never: packs, allocates, starts threads.

use multiversion::multiversion;

/// Column counts and row strides of tiles are multiples of this many floats, so that no column remainder exists.
pub const COLUMN_STEP: usize = 16;

/// What happens to the previous content of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `C = A · B`.
    Overwrite,
    /// `C += A · B`.
    Accumulate,
}

/// The left operand: element `(row, depth)` lies at `row * row_stride + depth * depth_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The storage.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance along the summed dimension.
    pub depth_stride: usize,
}

/// The right operand: element `(depth, column)` lies at `depth * stride + column`.
#[derive(Clone, Copy, Debug)]
pub struct Right<'a> {
    /// The storage.
    pub data: &'a [f32],
    /// Distance along the summed dimension.
    pub stride: usize,
}

/// The size of a product.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Rows of the left operand and of the output.
    pub rows: usize,
    /// Columns of the right operand and of the output, a multiple of [`COLUMN_STEP`].
    pub columns: usize,
    /// The summed dimension.
    pub depth: usize,
}

/// Rounds a column count up to a multiple of [`COLUMN_STEP`].
pub const fn padded(columns: usize) -> usize {
    columns.next_multiple_of(COLUMN_STEP)
}

/// A row stride for `columns` floats: an odd number of cache lines, so that a column of a tile spreads over all cache sets.
pub const fn tile_stride(columns: usize) -> usize {
    ((columns.div_ceil(COLUMN_STEP)) | 1) * COLUMN_STEP
}

/// Computes `c (+)= a · b`; rows of `c` are `c_stride` apart.
///
/// # Panics
/// If an operand is shorter than its extents say: tile sizes are ours, so that is our bug.
pub fn multiply(a: Left<'_>, b: Right<'_>, c: &mut [f32], c_stride: usize, extents: Extents, output: Output) {
    let Extents { rows, columns, depth } = extents;
    if rows == 0 || columns == 0 || (depth == 0 && output == Output::Accumulate) {
        return;
    }
    assert_eq!(columns % COLUMN_STEP, 0, "tile columns {columns} are not a multiple of {COLUMN_STEP}");
    if depth > 0 {
        assert!((rows - 1) * a.row_stride + (depth - 1) * a.depth_stride < a.data.len(), "left tile too short");
        assert!((depth - 1) * b.stride + columns <= b.data.len(), "right tile too short");
    }
    assert!((rows - 1) * c_stride + columns <= c.len() && columns <= c_stride, "output tile too short");
    let task = Task { a, b, c: c.as_mut_ptr(), c_stride, extents, output };
    if wide_vectors() {
        // SAFETY: the three assertions above bound every index `blocks` forms.
        unsafe { blocks::<8, 32>(task) }
    } else {
        // SAFETY: as above.
        unsafe { blocks::<6, 16>(task) }
    }
}

/// Whether 512-bit registers are in use; the same condition as `multiversion` applies.
fn wide_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

struct Task<'a> {
    a: Left<'a>,
    b: Right<'a>,
    c: *mut f32,
    c_stride: usize,
    extents: Extents,
    output: Output,
}

/// Covers the output with register blocks of `MR` rows and `NR` columns; row remainders use 4, 2 and 1 rows.
///
/// # Safety
/// The operands must cover the extents, as `multiply` asserts.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
unsafe fn blocks<const MR: usize, const NR: usize>(task: Task<'_>) {
    let Extents { rows, columns, .. } = task.extents;
    let mut column = 0;
    while column < columns {
        let wide = columns - column >= NR;
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            // SAFETY: row + block rows <= rows and column + block columns <= columns, within the caller's promise.
            row += unsafe {
                match (left, wide) {
                    (left, true) if left >= MR => block::<MR, NR>(&task, row, column),
                    (left, false) if left >= MR => block::<MR, COLUMN_STEP>(&task, row, column),
                    (4.., true) => block::<4, NR>(&task, row, column),
                    (4.., false) => block::<4, COLUMN_STEP>(&task, row, column),
                    (2.., true) => block::<2, NR>(&task, row, column),
                    (2.., false) => block::<2, COLUMN_STEP>(&task, row, column),
                    (_, true) => block::<1, NR>(&task, row, column),
                    (_, false) => block::<1, COLUMN_STEP>(&task, row, column),
                }
            };
        }
        column += if wide { NR } else { COLUMN_STEP };
    }
}

/// One register block; returns its number of rows.
///
/// # Safety
/// The block must lie inside the extents of a task whose operands cover them.
#[inline(always)]
unsafe fn block<const MR: usize, const NR: usize>(task: &Task<'_>, row: usize, column: usize) -> usize {
    let mut sums = [[0.0f32; NR]; MR];
    // SAFETY: inside the extents, by the caller's promise; `[f32; NR]` has the alignment of `f32`.
    unsafe {
        let a = task.a.data.as_ptr().add(row * task.a.row_stride);
        let b = task.b.data.as_ptr().add(column);
        for depth in 0..task.extents.depth {
            let b_row = &*b.add(depth * task.b.stride).cast::<[f32; NR]>();
            let a_column = a.add(depth * task.a.depth_stride);
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = *a_column.add(r * task.a.row_stride);
                for (sum, b) in sums.iter_mut().zip(b_row) {
                    *sum = x.mul_add(*b, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let c_row = &mut *task.c.add((row + r) * task.c_stride + column).cast::<[f32; NR]>();
            match task.output {
                Output::Overwrite => *c_row = *sums,
                Output::Accumulate => c_row.iter_mut().zip(sums).for_each(|(c, s)| *c += s),
            }
        }
    }
    MR
}
