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
        debug_assert_eq!(data.len(), rows * columns);
        Operand { data, rows, columns, transposed: false }
    }

    /// The transpose, by strides.
    pub(crate) fn t(self) -> Self {
        Operand { transposed: !self.transposed, ..self }
    }

    fn view(&self) -> MatRef<'a, E> {
        let row = self.columns as isize;
        if self.transposed {
            MatRef::new(self.data, self.columns, self.rows, 1, row)
        } else {
            MatRef::new(self.data, self.rows, self.columns, row, 1)
        }
    }
}

/// An element type gemmkit multiplies with f32 accumulation.
pub(crate) trait Scalar: Element + bytemuck::Pod {
    /// `c = alpha * a b + beta * c`; `c` is row-major `[rows of a, columns of b]`.
    fn product(alpha: f32, a: Operand<'_, Self>, b: Operand<'_, Self>, beta: f32, c: &mut [Self]);
}

macro_rules! scalar {
    ($type:ty) => {
        impl Scalar for $type {
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

/// `c = alpha * a b`, freshly allocated.
pub(crate) fn product<E: Scalar>(alpha: f32, a: Operand<'_, E>, b: Operand<'_, E>) -> Vec<E> {
    let mut c = vec![E::default(); a.view().rows() * b.view().cols()];
    E::product(alpha, a, b, 0.0, &mut c);
    c
}
