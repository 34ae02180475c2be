//! Tiles in shared memory, and what each unit of a cube holds of them.
//!
//! In:    rows of one head; two tiles.
//! Out:   products of a tile's rows with another's, and sums of them, in registers.
//! Never: reads beyond a tile: columns that a head lacks are zeros.
//!
//! A cube has one tile of rows of its own and goes through tiles of others. Its units stand in a grid, [`LANES`] wide: a unit has
//! [`Blocks::unit_rows`] rows, and of the others every [`LANES`]th. So a number read from shared memory serves several products.

use cubecl::prelude::*;

/// Units that share rows.
pub(super) const LANES: usize = 8;

/// How a cube divides attention of one head width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Blocks {
    /// Width of one head.
    pub(super) head_dim: usize,
    /// Rows of the cube's own.
    pub(super) rows: usize,
    /// Rows of a tile of others.
    pub(super) others: usize,
    /// Rows of one unit.
    pub(super) unit_rows: usize,
}

impl Blocks {
    /// For kernels that keep one tile of their own rows: it, a tile of others and the weights fit into 32 KB, which every device shares.
    pub(super) fn of_one_tile(head_dim: usize) -> Blocks {
        let (rows, others, unit_rows) = match head_dim {
            0..=64 => (32, 32, 4),
            65..=128 => (32, 16, 4),
            _ => (16, 8, 4),
        };
        Blocks { head_dim, rows, others, unit_rows }
    }

    /// For kernels that keep two.
    pub(super) fn of_two_tiles(head_dim: usize) -> Blocks {
        let (rows, others, unit_rows) = match head_dim {
            0..=64 => (32, 32, 4),
            65..=128 => (16, 16, 4),
            _ => (8, 8, 2),
        };
        Blocks { head_dim, rows, others, unit_rows }
    }

    /// Units of a cube.
    pub(super) fn units(self) -> usize {
        self.rows / self.unit_rows * LANES
    }

    /// Others that one unit multiplies with.
    pub(super) fn unit_others(self) -> usize {
        self.others / LANES
    }

    /// Columns of which one unit sums.
    pub(super) fn unit_columns(self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    /// Products that one unit has of a pair of tiles.
    pub(super) fn unit_products(self) -> usize {
        self.unit_rows * self.unit_others()
    }

    /// Sums that one unit has of its rows.
    pub(super) fn unit_sums(self) -> usize {
        self.unit_rows * self.unit_columns()
    }

    /// From one row of a tile to the next: odd, so that lanes that read a column read from different banks.
    pub(super) fn row_stride(self) -> usize {
        self.unit_columns() * LANES + 1
    }

    /// From one row of weights to the next.
    pub(super) fn weight_stride(self) -> usize {
        self.others + 1
    }
}

/// As many registers with that value.
#[cube]
pub(super) fn filled(value: f32, #[comptime] count: usize) -> Array<f32> {
    let mut numbers = Array::<f32>::new(count);
    #[unroll]
    for at in 0..count {
        numbers[at] = value;
    }
    numbers
}

/// The first of a unit's rows in its tile.
#[cube]
pub(super) fn first_row(#[comptime] blocks: Blocks) -> usize {
    UNIT_POS as usize / comptime!(LANES) * comptime!(blocks.unit_rows)
}

/// A unit's place among those that share its rows.
#[cube]
pub(super) fn own_lane() -> usize {
    UNIT_POS as usize % comptime!(LANES)
}

/// Copies `rows` rows from `token` on of one head into shared memory; zeros where there are none.
#[cube]
pub(super) fn load<F: Float>(
    from: &[F],
    to: &mut Shared<[f32]>,
    token: usize,
    head: usize,
    tokens: usize,
    #[comptime] heads: usize,
    #[comptime] rows: usize,
    #[comptime] blocks: Blocks,
) {
    let head_dim = comptime!(blocks.head_dim);
    let width = comptime!(blocks.unit_columns() * LANES);
    let mut at = UNIT_POS as usize;
    while at < comptime!(rows * width) {
        let (row, column) = (at / width, at % width);
        let from_row = token + row;
        let mut value = 0.0f32;
        if from_row < tokens && column < head_dim {
            value = f32::cast_from(from[(from_row * heads + head) * head_dim + column]);
        }
        to[row * comptime!(blocks.row_stride()) + column] = value;
        at += comptime!(blocks.units());
    }
}

/// The products of a unit's rows with its others, `[unit_rows, unit_others]`.
#[cube]
pub(super) fn dots(
    rows: &Shared<[f32]>,
    others: &Shared<[f32]>,
    first: usize,
    lane: usize,
    #[comptime] blocks: Blocks,
) -> Array<f32> {
    let (unit_rows, unit_others) = comptime!((blocks.unit_rows, blocks.unit_others()));
    let stride = comptime!(blocks.row_stride());
    let mut products = filled(0.0f32, comptime!(blocks.unit_products()));
    let mut of_others = filled(0.0f32, unit_others);
    for column in 0..comptime!(blocks.head_dim) {
        #[unroll]
        for other in 0..unit_others {
            of_others[other] = others[(other * comptime!(LANES) + lane) * stride + column];
        }
        #[unroll]
        for row in 0..unit_rows {
            let value = rows[(first + row) * stride + column];
            #[unroll]
            for other in 0..unit_others {
                products[row * unit_others + other] += value * of_others[other];
            }
        }
    }
    products
}

/// Adds to a unit's sums, `[unit_rows, unit_columns]` with a column every [`LANES`]: weights of its rows times the rows of another tile.
#[cube]
pub(super) fn add_weighted(
    sums: &mut Array<f32>,
    weights: &Shared<[f32]>,
    others: &Shared<[f32]>,
    first: usize,
    lane: usize,
    #[comptime] blocks: Blocks,
) {
    let (unit_rows, unit_columns) = comptime!((blocks.unit_rows, blocks.unit_columns()));
    let mut of_rows = filled(0.0f32, unit_rows);
    for other in 0..comptime!(blocks.others) {
        #[unroll]
        for row in 0..unit_rows {
            of_rows[row] = weights[(first + row) * comptime!(blocks.weight_stride()) + other];
        }
        #[unroll]
        for column in 0..unit_columns {
            let value = others[other * comptime!(blocks.row_stride()) + column * comptime!(LANES) + lane];
            #[unroll]
            for row in 0..unit_rows {
                sums[row * unit_columns + column] += of_rows[row] * value;
            }
        }
    }
}

/// Writes a unit's sums of one of its rows, times a factor, to the head that begins at `start`.
#[cube]
pub(super) fn store<F: Float>(
    sums: &Array<f32>,
    #[comptime] row: usize,
    factor: f32,
    out: &mut [F],
    start: usize,
    #[comptime] blocks: Blocks,
) {
    let unit_columns = comptime!(blocks.unit_columns());
    #[unroll]
    for part in 0..unit_columns {
        let column = part * comptime!(LANES) + own_lane();
        if column < comptime!(blocks.head_dim) {
            out[start + column] = F::cast_from(sums[row * unit_columns + part] * factor);
        }
    }
}
