//! Matrix products on slices through gemmkit, for the two storage formats.
//!
//! In:    contiguous row-major slices.
//! Out:   contiguous row-major slices, overwritten or added to.
//! Never: allocates in a steady step more than packing buffers and, without a bf16 dot product, [`WIDENED_ROWS`] rows.
//!
//! Every product has the same bits for every number of threads: gemmkit never splits the summed dimension.

use gemmkit::{MatMut, MatRef, Parallelism};
use half::bf16;

use crate::cpu::{self, Element};

/// As many threads as the work is worth, or one where rayon's current pool has one. gemmkit by itself looks at the
/// machine, not at the pool.
fn threads() -> Parallelism {
    if rayon::current_num_threads() == 1 { Parallelism::Serial } else { Parallelism::Rayon(0) }
}

#[cfg(target_arch = "x86_64")]
mod x86;

/// Rows whose outer product is summed at once in f32, so that widened copies of bf16 rows stay in cache.
const WIDENED_ROWS: usize = 512;

/// A row-major matrix and whether the product reads it transposed.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a, E> {
    data: &'a [E],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a, E> Operand<'a, E> {
    /// `[rows, columns]` as stored.
    pub(crate) fn new(data: &'a [E], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "elements of a matrix");
        Operand { data, rows, columns, transposed: false }
    }

    /// Rows as stored.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns as stored.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The transpose, by strides.
    pub(crate) fn t(self) -> Self {
        Operand { transposed: !self.transposed, ..self }
    }

    /// Rows, columns, and the distance between neighbours in each, as the product reads them.
    fn strides(&self) -> (usize, usize, isize, isize) {
        let row = self.columns as isize;
        match self.transposed {
            true => (self.columns, self.rows, 1, row),
            false => (self.rows, self.columns, row, 1),
        }
    }

    fn view(&self) -> MatRef<'a, E> {
        let (rows, columns, row, column) = self.strides();
        MatRef::new(self.data, rows, columns, row, column)
    }
}

/// An element type gemmkit multiplies with f32 accumulation.
pub(crate) trait Scalar: Element + bytemuck::Pod {
    /// `alpha * a b`, freshly allocated and never zeroed first.
    fn fresh_product(alpha: f32, a: Operand<'_, Self>, b: Operand<'_, Self>) -> Vec<Self>;

    /// `c = alpha * a b + beta * c`; `c` is row-major `[rows of a, columns of b]`.
    fn product(alpha: f32, a: Operand<'_, Self>, b: Operand<'_, Self>, beta: f32, c: &mut [Self]);

    /// `a b` into some columns of a row-major matrix: from the first one given, of so many in all.
    fn product_in(a: Operand<'_, Self>, b: Operand<'_, Self>, c: &mut [Self], columns: (usize, usize));

    /// `sum += leftᵀ right`, summed and kept in f32 whatever the operands are stored in: the gradient of a weight.
    /// `left` is `[t, o]`, `right` is `[t, i]`, both as stored; `sum` is `[o, i]`.
    fn add_outer(left: Operand<'_, Self>, right: Operand<'_, Self>, sum: &mut [f32]);
}

macro_rules! scalar {
    ($type:ty, $add_outer:ident) => {
        impl Scalar for $type {
            fn fresh_product(alpha: f32, a: Operand<'_, Self>, b: Operand<'_, Self>) -> Vec<Self> {
                let ((m, k, row_a, column_a), (inner, n, row_b, column_b)) = (a.strides(), b.strides());
                assert_eq!(k, inner, "inner dimensions of a product");
                let mut c = Box::<[Self]>::new_uninit_slice(m * n);
                let zero = <Self as Element>::from_f32(0.0);
                // SAFETY: `Operand::new` checked that both slices hold rows x columns elements, which is what the
                // strides address; `c` is fresh, holds m x n elements and, with beta 0, is written without being read.
                unsafe {
                    gemmkit::gemm_unchecked(
                        m,
                        k,
                        n,
                        Element::from_f32(alpha),
                        a.data.as_ptr(),
                        row_a,
                        column_a,
                        b.data.as_ptr(),
                        row_b,
                        column_b,
                        zero,
                        c.as_mut_ptr().cast(),
                        n as isize,
                        1,
                        threads(),
                    );
                    c.assume_init().into_vec()
                }
            }

            fn product(alpha: f32, a: Operand<'_, Self>, b: Operand<'_, Self>, beta: f32, c: &mut [Self]) {
                let (a, b) = (a.view(), b.view());
                let (rows, columns) = (a.rows(), b.cols());
                let (alpha, beta) = (Element::from_f32(alpha), Element::from_f32(beta));
                gemmkit::gemm(alpha, a, b, beta, MatMut::from_row_major(c, rows, columns), threads());
            }

            fn product_in(a: Operand<'_, Self>, b: Operand<'_, Self>, c: &mut [Self], (first, of): (usize, usize)) {
                let (a, b) = (a.view(), b.view());
                let (rows, columns) = (a.rows(), b.cols());
                let (alpha, beta) = (Element::from_f32(1.0), Element::from_f32(0.0));
                let c = MatMut::new(&mut c[first..], rows, columns, of as isize, 1);
                gemmkit::gemm(alpha, a, b, beta, c, threads());
            }

            fn add_outer(left: Operand<'_, Self>, right: Operand<'_, Self>, sum: &mut [f32]) {
                assert_eq!(left.rows, right.rows, "tokens of an outer product");
                assert!(!left.transposed && !right.transposed, "an outer product reads its operands as stored");
                assert_eq!(sum.len(), left.columns * right.columns, "elements of an outer product");
                if left.rows > 0 && !sum.is_empty() {
                    $add_outer(left, right, sum);
                }
            }
        }
    };
}
scalar!(f32, add_outer_f32);
scalar!(bf16, add_outer_bf16);

fn add_outer_f32(left: Operand<'_, f32>, right: Operand<'_, f32>, sum: &mut [f32]) {
    f32::product(1.0, left.t(), right, 1.0, sum);
}

fn add_outer_bf16(left: Operand<'_, bf16>, right: Operand<'_, bf16>, sum: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::has_dot_product() {
        return x86::add_outer(left, right, sum);
    }
    add_outer_widened(1.0, (left.data, left.columns), (right.data, right.columns), sum);
}

/// `sum += scale * leftᵀ right` by f32 products of widened rows; each operand comes with its columns.
pub(crate) fn add_outer_widened<E: Element>(scale: f32, left: (&[E], usize), right: (&[E], usize), sum: &mut [f32]) {
    let ((left, rows), (right, columns)) = (left, right);
    let widen = |values: &[E]| {
        let mut wide = vec![0.0f32; values.len()];
        cpu::widen(values, &mut wide);
        wide
    };
    for (left, right) in left.chunks(WIDENED_ROWS * rows).zip(right.chunks(WIDENED_ROWS * columns)) {
        let tokens = left.len() / rows;
        let (left, right) = (widen(left), widen(right));
        let (left, right) = (Operand::new(&left, tokens, rows), Operand::new(&right, tokens, columns));
        f32::product(scale, left.t(), right, 1.0, sum);
    }
}

/// `alpha * a b`, freshly allocated.
pub(crate) fn product<E: Scalar>(alpha: f32, a: Operand<'_, E>, b: Operand<'_, E>) -> Vec<E> {
    E::fresh_product(alpha, a, b)
}

#[cfg(test)]
mod tests;
