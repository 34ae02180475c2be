//! What every launch needs.
//!
//! In:    handles of a client.
//! Out:   arguments whose lengths are those of the buffers, and how many cubes cover them.
//! Never: lets a kernel see more of a buffer than it has.

use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Launches a kernel; where a test records, hands it over instead, to be compiled for devices that are not there.
macro_rules! launch {
    ($client:expr, $kernel:ident, $count:expr, $cube:expr, $($argument:expr),* $(,)?) => {{
        use crate::launch::Argument as _;
        #[cfg(test)]
        let is_recorded = crate::tests::cuda::record(|properties, target| {
            Box::new($kernel::create_dummy_kernel(properties, target, $count, $cube, $($argument.made()),*))
        });
        #[cfg(not(test))]
        let is_recorded = false;
        if !is_recorded {
            $kernel::launch($client, $count, $cube, $($argument.made()),*);
        }
    }};
}
pub(crate) use launch;

/// What a launch makes of a value.
pub(crate) trait Argument {
    type Made;
    fn made(&self) -> Self::Made;
}

impl Argument for Buffer {
    type Made = BufferArg;

    fn made(&self) -> BufferArg {
        // SAFETY: the handle holds as many numbers: `of` compared, `empty` allocated.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}

macro_rules! made_of_themselves {
    ($($kind:ty),*) => {$(
        impl Argument for $kind {
            type Made = $kind;

            fn made(&self) -> $kind {
                *self
            }
        }
    )*};
}
made_of_themselves!(f32, u32, usize, bool, ElemType, crate::attention::Blocks);

/// Units of a cube for one-dimensional work.
pub(crate) const UNITS: u32 = 256;
/// Cubes along one axis that every device can launch.
const CUBES_MAX: u32 = 65_535;

/// Format of the numbers in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16.
    Bf16,
}

impl Number {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::Bf16 => 2,
        }
    }

    /// CubeCL's name for it.
    pub fn element(self) -> ElemType {
        match self {
            Number::F32 => f32::elem_type_native(),
            Number::Bf16 => half::bf16::elem_type_native(),
        }
    }
}

/// Numbers on a device.
#[derive(Debug, Clone)]
pub struct Buffer {
    handle: Handle,
    len: usize,
}

impl Buffer {
    /// `len` numbers of a format.
    ///
    /// # Panics
    /// If the handle holds fewer bytes: our bug.
    pub fn new(handle: Handle, len: usize, number: Number) -> Buffer {
        Buffer::of(handle, len, number.bytes())
    }

    /// `len` words of 32 bits.
    ///
    /// # Panics
    /// If the handle holds fewer bytes: our bug.
    pub fn words(handle: Handle, len: usize) -> Buffer {
        Buffer::of(handle, len, 4)
    }

    fn of(handle: Handle, len: usize, bytes: usize) -> Buffer {
        assert!(handle.size_in_used() >= (len * bytes) as u64, "{len} numbers of {bytes} bytes in a smaller buffer");
        Buffer { handle, len }
    }

    /// A new one of the same client.
    pub fn empty(client: &Client, len: usize, number: Number) -> Buffer {
        Buffer { handle: client.empty(len * number.bytes()), len }
    }

    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn expect(&self, what: &str, len: usize) {
        assert_eq!(self.len, len, "numbers in {what}");
    }
}

/// Cubes of [`UNITS`] that have a unit for each of `units`.
pub(crate) fn cover(units: usize) -> CubeCount {
    cubes(units.div_ceil(UNITS as usize))
}

/// So many cubes, along two axes where one is too short; a kernel asks whether its number is one of them.
pub(crate) fn cubes(count: usize) -> CubeCount {
    let count = u32::try_from(count).expect("fewer than 2^32 cubes");
    let y = count.div_ceil(CUBES_MAX).max(1);
    CubeCount::Static(count.div_ceil(y), y, 1)
}

/// The sum over all units of a cube, in a fixed order; every unit has it. Each unit must call it.
#[cube]
pub(crate) fn sum_over_cube(value: f32, scratch: &mut Shared<[f32]>) -> f32 {
    reduce_over_cube(value, scratch, false)
}

/// The largest over all units of a cube; every unit has it. Each unit must call it.
#[cube]
pub(crate) fn max_over_cube(value: f32, scratch: &mut Shared<[f32]>) -> f32 {
    reduce_over_cube(value, scratch, true)
}

#[cube]
fn reduce_over_cube(value: f32, scratch: &mut Shared<[f32]>, #[comptime] largest: bool) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    let mut width = CUBE_DIM as usize / 2usize;
    while width > 0 {
        if unit < width {
            let other = scratch[unit + width];
            if comptime!(largest) {
                scratch[unit] = max(scratch[unit], other);
            } else {
                scratch[unit] += other;
            }
        }
        sync_cube();
        width /= 2usize;
    }
    scratch[0]
}
