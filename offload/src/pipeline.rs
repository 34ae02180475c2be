//! Walks spans of arrays while the disk works: one span is read ahead, one is written behind.
//!
//! In:    for each group its arrays ("lanes"), which of them are read and which are written.
//! Out:   a call for every span in ascending order, with the bytes of each lane; written lanes are on disk when the walk ends.
//! Never: holds more than three spans' buffers; returns, not even with an error, while one of its transfers is in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::array::Array;
use crate::buffer::{Buffer, BufferPool};
use crate::error::TierError;
use crate::store::{Extent, Store, Ticket};

/// Spans whose buffers exist at one time: one being read, one computed, one written.
pub(crate) const SPANS_IN_FLIGHT: usize = 3;

/// What a walk does with an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only.
    Read,
    /// Overwritten without being read.
    Write,
    /// Changed in place.
    Change,
}

/// One array of a walk.
pub(crate) struct Lane<'a> {
    home: Home<'a>,
    access: Access,
}

enum Home<'a> {
    Memory { bytes: &'a mut [u8], span_bytes: usize },
    Nvme { store: &'a Store, extent: &'a Extent },
}

/// Where the time of a walk went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WalkTimes {
    pub read_stall: Duration,
    pub write_stall: Duration,
    pub compute: Duration,
}

impl<'a> Lane<'a> {
    /// An array and what happens to it.
    pub fn new(array: &'a mut Array, access: Access) -> Lane<'a> {
        let span_bytes = array.span_elements() / 256 * array.bytes_per_256();
        let home = if array.in_memory().is_some() {
            let bytes = array.in_memory_mut().expect("just seen to be in memory");
            Home::Memory { bytes, span_bytes }
        } else {
            let (store, extent) = array.on_nvme().expect("what is not in memory is on NVMe");
            Home::Nvme { store, extent }
        };
        Lane { home, access }
    }

    fn pool(&self) -> Option<&BufferPool> {
        match &self.home {
            Home::Memory { .. } => None,
            Home::Nvme { store, .. } => Some(store.pool()),
        }
    }

    /// The span's bytes: in place, or in `buffer`.
    fn view<'v>(&'v mut self, span: usize, buffer: Option<&'v mut Buffer>) -> &'v mut [u8] {
        match (&mut self.home, buffer) {
            (Home::Memory { bytes, span_bytes }, _) => {
                let start = (span * *span_bytes).min(bytes.len());
                let end = (start + *span_bytes).min(bytes.len());
                &mut bytes[start..end]
            }
            (Home::Nvme { extent, .. }, Some(buffer)) => &mut buffer[..extent.chunk_len(span)],
            (Home::Nvme { .. }, None) => unreachable!("each lane on NVMe has a buffer"),
        }
    }
}

/// A lane's buffer for one span.
enum Piece {
    Coming(Ticket),
    Here(Buffer),
}

/// The buffers of one span, one for each lane on NVMe.
type Pieces = Vec<Option<Piece>>;

/// Calls `compute(group, span, bytes of each lane)` for every span of every group in order.
///
/// # Errors
/// The first transfer that failed. Transfers already begun are waited for, later spans are not touched.
pub(crate) fn walk(
    groups: &mut [Vec<Lane<'_>>],
    spans: &[usize],
    mut compute: impl FnMut(usize, usize, Vec<&mut [u8]>),
) -> Result<WalkTimes, TierError> {
    let depth = depth(groups)?;
    let jobs: Vec<(usize, usize)> =
        spans.iter().enumerate().flat_map(|(group, spans)| (0..*spans).map(move |span| (group, span))).collect();
    let mut flight = Flight { ahead: VecDeque::new(), writes: VecDeque::new(), times: WalkTimes::default() };
    let result = flight.run(groups, &jobs, depth, &mut compute);
    flight.land();
    result.map(|()| flight.times)
}

/// How many spans the pool's buffers suffice for, at most [`SPANS_IN_FLIGHT`].
fn depth(groups: &[Vec<Lane<'_>>]) -> Result<usize, TierError> {
    let lanes = groups.iter().map(|lanes| lanes.iter().filter_map(Lane::pool).count()).max().unwrap_or(0);
    let Some(pool) = groups.iter().flatten().find_map(Lane::pool) else {
        return Ok(1);
    };
    match pool.count() / lanes.max(1) {
        0 => Err(TierError::TooFewBuffers { needed: lanes, count: pool.count() }),
        spans => Ok(spans.min(SPANS_IN_FLIGHT)),
    }
}

/// Everything a walk has in the air.
struct Flight {
    /// Spans being read, the next one first.
    ahead: VecDeque<Pieces>,
    /// Spans being written, the oldest first.
    writes: VecDeque<Vec<Ticket>>,
    times: WalkTimes,
}

impl Flight {
    fn run(
        &mut self,
        groups: &mut [Vec<Lane<'_>>],
        jobs: &[(usize, usize)],
        depth: usize,
        compute: &mut impl FnMut(usize, usize, Vec<&mut [u8]>),
    ) -> Result<(), TierError> {
        let mut to_begin = jobs.iter();
        for &(group, span) in jobs {
            // This span and, if there are buffers for it, the next.
            while self.ahead.len() < depth.min(2) {
                let Some(&(next_group, next_span)) = to_begin.next() else { break };
                self.finish_writes(depth - 1 - self.ahead.len())?;
                self.begin(&groups[next_group], next_span);
            }
            let pieces = self.ahead.pop_front().expect("begun above");
            let buffers = self.arrive(pieces)?;
            self.compute_span(&mut groups[group], (group, span), buffers, compute);
        }
        self.finish_writes(0)
    }

    /// Takes buffers for a span and starts its reads.
    fn begin(&mut self, lanes: &[Lane<'_>], span: usize) {
        let started = Instant::now();
        let piece = |lane: &Lane<'_>| match &lane.home {
            Home::Memory { .. } => None,
            Home::Nvme { store, extent } => {
                let buffer = store.pool().take();
                Some(match lane.access {
                    Access::Write => Piece::Here(buffer),
                    Access::Read | Access::Change => Piece::Coming(store.read(extent, span, buffer)),
                })
            }
        };
        self.ahead.push_back(lanes.iter().map(piece).collect());
        self.times.read_stall += started.elapsed();
    }

    /// Waits for a span's reads.
    fn arrive(&mut self, pieces: Pieces) -> Result<Vec<Option<Buffer>>, TierError> {
        let started = Instant::now();
        let mut failure = None;
        let mut buffers = Vec::with_capacity(pieces.len());
        for piece in pieces {
            buffers.push(match piece {
                None => None,
                Some(Piece::Here(buffer)) => Some(buffer),
                // All are waited for even if one failed.
                Some(Piece::Coming(ticket)) => ticket.wait().map_err(|error| failure.get_or_insert(error)).ok(),
            });
        }
        self.times.read_stall += started.elapsed();
        failure.map_or(Ok(buffers), Err)
    }

    /// Computes a span and starts its writes.
    fn compute_span(
        &mut self,
        lanes: &mut [Lane<'_>],
        (group, span): (usize, usize),
        mut buffers: Vec<Option<Buffer>>,
        compute: &mut impl FnMut(usize, usize, Vec<&mut [u8]>),
    ) {
        let started = Instant::now();
        let views = lanes.iter_mut().zip(&mut buffers).map(|(lane, buffer)| lane.view(span, buffer.as_mut()));
        compute(group, span, views.collect());
        self.times.compute += started.elapsed();
        let write = |(lane, buffer): (&Lane<'_>, Option<Buffer>)| match (&lane.home, buffer) {
            (Home::Nvme { store, extent }, Some(buffer)) if lane.access != Access::Read => {
                Some(store.write(extent, span, buffer))
            }
            _ => None,
        };
        let tickets: Vec<Ticket> = lanes.iter().zip(buffers).filter_map(write).collect();
        if !tickets.is_empty() {
            self.writes.push_back(tickets);
        }
    }

    /// Waits until at most `left` spans are being written.
    fn finish_writes(&mut self, left: usize) -> Result<(), TierError> {
        let started = Instant::now();
        let mut failure = None;
        while failure.is_none() && self.writes.len() > left {
            for ticket in self.writes.pop_front().unwrap_or_default() {
                if let Err(error) = ticket.wait() {
                    failure.get_or_insert(error);
                }
            }
        }
        self.times.write_stall += started.elapsed();
        failure.map_or(Ok(()), Err)
    }

    /// Waits for everything still in flight, whatever becomes of it: an error has already been reported.
    fn land(&mut self) {
        let coming = self.ahead.drain(..).flatten().filter_map(|piece| match piece {
            Some(Piece::Coming(ticket)) => Some(ticket),
            _ => None,
        });
        for ticket in coming.chain(self.writes.drain(..).flatten()) {
            drop(ticket.wait());
        }
    }
}
