//! Arrays of a group: flat, in memory or on NVMe, cut into spans.
//!
//! In:    a place, a number of elements, bytes per 256 elements, elements per span.
//! Out:   the same bytes for every place.
//! Never: knows what the elements mean.

use std::collections::VecDeque;

use crate::buffer::Buffer;
use crate::error::TierError;
use crate::slab::{Slab, Slabs};
use crate::store::{Extent, Store, Ticket};

/// Elements that the sizes of arrays are stated for: one block of 8-bit states.
pub const BLOCK_ELEMENTS: u64 = 256;

/// Transfers of one call in flight at most; enough for the disks, and other users of the pool get their turn.
const WINDOW: usize = 32;

/// Where an array lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Memory of the compute device; on a CPU a budget of its own.
    Device,
    /// Host memory.
    Dram,
    /// Files on NVMe.
    Nvme,
}

/// The tiers of a run.
#[derive(Clone, Debug)]
pub struct Tiers {
    /// Device memory (of a CPU).
    pub device: Slabs,
    /// Host memory.
    pub dram: Slabs,
    /// Files, if the run has any.
    pub nvme: Option<Store>,
}

/// A flat array in one of the tiers.
#[derive(Debug)]
pub struct Array {
    name: String,
    elements: u64,
    bytes_per_256: usize,
    span_elements: usize,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Memory(Slab),
    Nvme(Store, Extent),
}

impl Tiers {
    /// An array of zeros named `name` with `bytes_per_256` bytes per 256 elements, moved in spans of `span_elements`.
    ///
    /// # Errors
    /// [`TierError::OverBudget`] or [`TierError::NoSpace`] if the tier is too small, [`TierError::NoNvme`] without NVMe.
    ///
    /// # Panics
    /// If `elements` or `span_elements` is no multiple of 256: both come from our own layout.
    pub fn array(
        &self,
        place: Place,
        name: &str,
        elements: u64,
        bytes_per_256: usize,
        span_elements: usize,
    ) -> Result<Array, TierError> {
        let block = BLOCK_ELEMENTS;
        assert!(elements.is_multiple_of(block), "array {name} of {elements} elements is not padded to {block}");
        assert!(span_elements > 0 && (span_elements as u64).is_multiple_of(block), "spans of {span_elements} elements");
        let bytes = elements / block * bytes_per_256 as u64;
        let home = match place {
            Place::Device => Home::Memory(self.device.take(name, bytes)?),
            Place::Dram => Home::Memory(self.dram.take(name, bytes)?),
            Place::Nvme => {
                let store = self.nvme.clone().ok_or_else(|| TierError::NoNvme { what: name.to_owned() })?;
                let extent = store.allocate(name, bytes, span_elements / block as usize * bytes_per_256)?;
                Home::Nvme(store, extent)
            }
        };
        Ok(Array { name: name.to_owned(), elements, bytes_per_256, span_elements, home })
    }
}

impl Array {
    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Elements of every span but the last, which may have less.
    pub fn span_elements(&self) -> usize {
        self.span_elements
    }

    /// How many spans it has.
    pub fn spans(&self) -> usize {
        self.elements.div_ceil(self.span_elements as u64) as usize
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements / BLOCK_ELEMENTS * self.bytes_per_256 as u64
    }

    /// Bytes per 256 elements.
    pub fn bytes_per_256(&self) -> usize {
        self.bytes_per_256
    }

    /// Its bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.home {
            Home::Memory(slab) => Some(slab),
            Home::Nvme(..) => None,
        }
    }

    /// Its bytes to change, if they are in memory.
    pub fn in_memory_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.home {
            Home::Memory(slab) => Some(slab),
            Home::Nvme(..) => None,
        }
    }

    /// The store and the extent that hold it, if it is on NVMe. Chunk `i` of the extent is span `i`.
    pub fn on_nvme(&self) -> Option<(&Store, &Extent)> {
        match &self.home {
            Home::Memory(_) => None,
            Home::Nvme(store, extent) => Some((store, extent)),
        }
    }

    /// Reads the elements from number `first_element` on into `out`.
    ///
    /// # Errors
    /// What the store says, for arrays on NVMe.
    ///
    /// # Panics
    /// If the range is not inside of the array or does not begin at a whole byte.
    pub fn read(&self, first_element: u64, out: &mut [u8]) -> Result<(), TierError> {
        let first = self.first_byte(first_element, out.len());
        match &self.home {
            Home::Memory(slab) => {
                out.copy_from_slice(&slab[first as usize..][..out.len()]);
                Ok(())
            }
            Home::Nvme(store, extent) => read_extent(store, extent, first, out),
        }
    }

    /// Calls `visit` with the first element and the bytes of every span in turn; spans on NVMe are read ahead.
    ///
    /// # Errors
    /// What the store says, for arrays on NVMe.
    pub fn visit(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<(), TierError> {
        let (store, extent) = match &self.home {
            Home::Memory(slab) => {
                visit(0, slab);
                return Ok(());
            }
            Home::Nvme(store, extent) => (store, extent),
        };
        let span_elements = self.span_elements as u64;
        let mut end = |(span, ticket): (usize, Ticket)| {
            visit(span as u64 * span_elements, &ticket.wait()?[..extent.chunk_len(span)]);
            Ok(())
        };
        let mut flying = VecDeque::new();
        for span in 0..self.spans() {
            let buffer = next_buffer(store, &mut flying, &mut end)?;
            flying.push_back((span, store.read(extent, span, buffer)));
        }
        flying.into_iter().try_for_each(end)
    }

    /// Writes the elements from number `first_element` on. After an error any part of them may have been written.
    ///
    /// # Errors
    /// What the store says, for arrays on NVMe.
    ///
    /// # Panics
    /// As [`Array::read`].
    pub fn write(&mut self, first_element: u64, data: &[u8]) -> Result<(), TierError> {
        let first = self.first_byte(first_element, data.len());
        match &mut self.home {
            Home::Memory(slab) => {
                slab[first as usize..][..data.len()].copy_from_slice(data);
                Ok(())
            }
            Home::Nvme(store, extent) => write_extent(store, extent, first, data),
        }
    }

    /// Where element number `first_element` starts, with `len` bytes from there on inside of the array.
    fn first_byte(&self, first_element: u64, len: usize) -> u64 {
        let scaled = first_element * self.bytes_per_256 as u64;
        assert!(
            scaled.is_multiple_of(BLOCK_ELEMENTS),
            "array {}: element {first_element} starts inside a byte",
            self.name
        );
        let first = scaled / BLOCK_ELEMENTS;
        let (name, bytes) = (&self.name, self.bytes());
        assert!(
            first + len as u64 <= bytes,
            "array {name} of {bytes} bytes: {len} bytes from {first} on are not in it"
        );
        first
    }
}

/// The part of one chunk that a byte range touches.
struct Piece {
    chunk: usize,
    /// First byte within the chunk.
    from: usize,
    len: usize,
}

/// Cuts `len` bytes from byte `first` on at the borders of chunks.
fn pieces(extent: &Extent, first: u64, len: usize) -> impl Iterator<Item = Piece> {
    let end = first + len as u64;
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let chunk = (at / extent.chunk_bytes() as u64) as usize;
        let from = (at % extent.chunk_bytes() as u64) as usize;
        let len = (end - at).min((extent.chunk_len(chunk) - from) as u64) as usize;
        at += len as u64;
        Some(Piece { chunk, from, len })
    })
}

/// A buffer for the next transfer: makes room in `flying` by ending its oldest one when there are enough, or no buffer is free.
fn next_buffer<T>(
    store: &Store,
    flying: &mut VecDeque<T>,
    mut end: impl FnMut(T) -> Result<(), TierError>,
) -> Result<Buffer, TierError> {
    if flying.len() >= WINDOW {
        flying.pop_front().map_or(Ok(()), &mut end)?;
    }
    loop {
        if let Some(buffer) = store.pool().try_take() {
            return Ok(buffer);
        }
        match flying.pop_front() {
            Some(oldest) => end(oldest)?,
            None => return Ok(store.pool().take()),
        }
    }
}

fn read_extent(store: &Store, extent: &Extent, first: u64, out: &mut [u8]) -> Result<(), TierError> {
    fn end((ticket, from, out): (Ticket, usize, &mut [u8])) -> Result<(), TierError> {
        out.copy_from_slice(&ticket.wait()?[from..][..out.len()]);
        Ok(())
    }
    let mut flying = VecDeque::new();
    let mut rest = out;
    for piece in pieces(extent, first, rest.len()) {
        let buffer = next_buffer(store, &mut flying, end)?;
        let (part, tail) = rest.split_at_mut(piece.len);
        rest = tail;
        flying.push_back((store.read(extent, piece.chunk, buffer), piece.from, part));
    }
    flying.into_iter().try_for_each(end)
}

fn write_extent(store: &Store, extent: &Extent, first: u64, data: &[u8]) -> Result<(), TierError> {
    let end = |ticket: Ticket| ticket.wait().map(drop);
    let mut flying = VecDeque::new();
    let mut rest = data;
    for piece in pieces(extent, first, data.len()) {
        let mut buffer = next_buffer(store, &mut flying, end)?;
        let (part, tail) = rest.split_at(piece.len);
        rest = tail;
        if piece.len < extent.chunk_len(piece.chunk) {
            // At most the first and the last piece: the other bytes of the chunk stay.
            buffer = store.read(extent, piece.chunk, buffer).wait()?;
        }
        buffer[piece.from..][..piece.len].copy_from_slice(part);
        flying.push_back(store.write(extent, piece.chunk, buffer));
    }
    flying.into_iter().try_for_each(end)
}
