//! Matrix products on slices through gemmkit, for the two storage formats.
//!
//! In:    contiguous row-major slices.
//! Out:   contiguous row-major slices, overwritten or added to.
//! Never: allocates more than gemmkit's own thread-local packing buffers.

use gemmkit::{MatMut, MatRef, Parallelism};
use half::bf16;

use crate::cpu::Element;

/// All threads of rayon's global pool.
const ALL_THREADS: Parallelism = Parallelism::Rayon(0);

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
}

macro_rules! scalar {
    ($type:ty) => {
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
                        ALL_THREADS,
                    );
                    c.assume_init().into_vec()
                }
            }

            fn product(alpha: f32, a: Operand<'_, Self>, b: Operand<'_, Self>, beta: f32, c: &mut [Self]) {
                let (a, b) = (a.view(), b.view());
                let (rows, columns) = (a.rows(), b.cols());
                let (alpha, beta) = (Element::from_f32(alpha), Element::from_f32(beta));
                gemmkit::gemm(alpha, a, b, beta, MatMut::from_row_major(c, rows, columns), ALL_THREADS);
            }
        }
    };
}
scalar!(f32);
scalar!(bf16);

/// `alpha * a b`, freshly allocated.
pub(crate) fn product<E: Scalar>(alpha: f32, a: Operand<'_, E>, b: Operand<'_, E>) -> Vec<E> {
    E::fresh_product(alpha, a, b)
}
