//! The engine for Linux: io_uring with registered buffers and files.
//!
//! In:    reads and writes.
//! Out:   their completions; one system call submits and waits for many.
//! Never: polls; uses memory of its own for data.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};

use super::EngineKind;
use super::engine::{Completion, Direction, Engine, Op, Waker};
use super::layout::Layout;
use crate::buffer::BufferPool;
use crate::sync::Notes;

/// The waker's token; requests count from 0.
const WAKE: u64 = u64::MAX;
/// The kernel takes at most 1 GiB in one registered buffer.
const REGISTERED_BYTES_MAX: usize = 1 << 30;
/// More entries than this in one ring are never in flight: what is over waits in our own queue.
const ENTRIES_MAX: usize = 4096;
/// How long the end of what the kernel has begun is waited for when the engine is given up.
const ABANDON_WAIT: Duration = Duration::from_secs(10);

/// One ring.
pub(crate) struct Uring {
    ring: IoUring,
    layout: Arc<Layout>,
    waker: Arc<Waker>,
    /// Not yet in the submission queue.
    backlog: VecDeque<Op>,
    /// In the submission queue, in its order.
    queued: VecDeque<u64>,
    /// Taken over by the kernel.
    accepted: HashSet<u64>,
    /// Whether the kernel watches the waker's descriptor, or is about to.
    listening: bool,
    /// Pool buffers per registered buffer, if they are registered.
    buffers_per_registration: Option<u32>,
    fixed_files: bool,
    /// Keeps the registered memory mapped.
    pool: BufferPool,
}

impl Uring {
    /// A ring for `queue_depth` requests in flight per path.
    ///
    /// # Errors
    /// What the kernel said where io_uring is forbidden, unknown or too old.
    pub fn new(
        layout: Arc<Layout>,
        waker: Arc<Waker>,
        pool: &BufferPool,
        queue_depth: usize,
        notes: &Notes,
    ) -> io::Result<Uring> {
        if waker.descriptor().is_none() {
            return Err(io::Error::other("no event descriptor to wake the ring"));
        }
        let ring = build(queue_depth.saturating_mul(layout.files.len()).saturating_add(2).min(ENTRIES_MAX) as u32)?;
        check_features(&ring)?;
        let descriptors: Vec<_> = layout.files.iter().map(|swap| swap.file.as_raw_fd()).collect();
        let fixed_files = ring.submitter().register_files(&descriptors).is_ok();
        let buffers_per_registration = match register(&ring, pool) {
            Ok(count) => Some(count),
            Err(error) => {
                notes.add(format!(
                    "io_uring: the buffers cannot be registered ({error}); the kernel maps them anew for each request, a few \
                     percent more CPU time; raise the memlock limit (ulimit -l) above {} KiB",
                    pool.count() * pool.buffer_bytes() / 1024
                ));
                None
            }
        };
        Ok(Uring {
            ring,
            layout,
            waker,
            backlog: VecDeque::new(),
            queued: VecDeque::new(),
            accepted: HashSet::new(),
            listening: false,
            buffers_per_registration,
            fixed_files,
            pool: pool.clone(),
        })
    }

    /// Whether the kernel keeps the buffers mapped.
    pub fn registered_buffers(&self) -> bool {
        self.buffers_per_registration.is_some()
    }

    fn entry(&self, op: &Op) -> squeue::Entry {
        let (memory, len) = (op.memory, op.len as u32);
        // io_uring has two types of file targets and two operations each way; macros would say no less.
        let file = Fixed(op.file as u32);
        let plain = Fd(self.layout.files[op.file].file.as_raw_fd());
        let registers = self.buffers_per_registration.filter(|_| (op.buffer as usize) < self.pool.in_one_piece());
        let registered = registers.map(|count| (op.buffer / count) as u16);
        let entry = match (op.direction, registered, self.fixed_files) {
            (Direction::Read, Some(index), true) => {
                opcode::ReadFixed::new(file, memory, len, index).offset(op.offset).build()
            }
            (Direction::Read, Some(index), false) => {
                opcode::ReadFixed::new(plain, memory, len, index).offset(op.offset).build()
            }
            (Direction::Read, None, true) => opcode::Read::new(file, memory, len).offset(op.offset).build(),
            (Direction::Read, None, false) => opcode::Read::new(plain, memory, len).offset(op.offset).build(),
            (Direction::Write, Some(index), true) => {
                opcode::WriteFixed::new(file, memory, len, index).offset(op.offset).build()
            }
            (Direction::Write, Some(index), false) => {
                opcode::WriteFixed::new(plain, memory, len, index).offset(op.offset).build()
            }
            (Direction::Write, None, true) => opcode::Write::new(file, memory, len).offset(op.offset).build(),
            (Direction::Write, None, false) => opcode::Write::new(plain, memory, len).offset(op.offset).build(),
        };
        entry.user_data(op.token)
    }

    /// Moves the backlog, and the watch on the waker, into the submission queue as far as there is room.
    fn queue(&mut self) {
        if !self.listening
            && let Some(event) = self.waker.descriptor()
        {
            let watch = opcode::PollAdd::new(Fd(event), libc::POLLIN as u32).build().user_data(WAKE);
            self.listening = self.push(&watch, WAKE);
        }
        while let Some(op) = self.backlog.front() {
            let (entry, token) = (self.entry(op), op.token);
            if !self.push(&entry, token) {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn push(&mut self, entry: &squeue::Entry, token: u64) -> bool {
        // SAFETY: the memory of reads and writes stays valid by the contract of `Engine::start`; a poll has none.
        let pushed = unsafe { self.ring.submission().push(entry) }.is_ok();
        if pushed {
            self.queued.push_back(token);
        }
        pushed
    }

    /// Books what the kernel took from the submission queue.
    fn book_accepted(&mut self) {
        let left = self.ring.submission().len();
        let taken = self.queued.len().saturating_sub(left);
        self.accepted.extend(self.queued.drain(..taken));
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        let mut woken = false;
        for entry in self.ring.completion() {
            let token = entry.user_data();
            self.accepted.remove(&token);
            if token == WAKE {
                woken = true;
                continue;
            }
            let result = match entry.result() {
                code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
                bytes => Ok(bytes as usize),
            };
            done.push(Completion { token, result });
        }
        if woken {
            self.listening = false;
            self.waker.clear();
        }
    }
}

impl Engine for Uring {
    fn kind(&self) -> EngineKind {
        EngineKind::IoUring
    }

    unsafe fn start(&mut self, op: Op) {
        self.backlog.push_back(op);
    }

    fn wait(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> io::Result<()> {
        self.queue();
        let limit = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&limit);
        let entered = match timeout.is_zero() {
            true => self.ring.submit(),
            false => self.ring.submitter().submit_with_args(1, &arguments),
        };
        self.book_accepted();
        self.reap(done);
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is over; a signal came; the completion queue was full and has been emptied just now.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                // The kernel is short of memory for requests: those in flight free some.
                Some(libc::EAGAIN) => {
                    std::thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn abandon(&mut self, done: &mut Vec<Completion>) -> Vec<u64> {
        self.book_accepted();
        let deadline = Instant::now() + ABANDON_WAIT;
        loop {
            // Completions arrive in shared memory without a system call of ours.
            self.reap(done);
            if self.accepted.iter().all(|token| *token == WAKE) || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.accepted.iter().copied().filter(|token| *token != WAKE).collect()
    }
}

/// A ring with the cheapest mode the kernel knows.
fn build(entries: u32) -> io::Result<IoUring> {
    // No interrupt of a running thread for completions it will look for itself (kernel 6.0).
    let modern = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries);
    match modern {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        other => other,
    }
}

fn check_features(ring: &IoUring) -> io::Result<()> {
    let missing = |what: &str| Err(io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's has no {what}")));
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return missing("timeouts for waiting (it came with Linux 5.11)");
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
        opcode::PollAdd::CODE,
    ];
    match needed.iter().all(|code| probe.is_supported(*code)) {
        true => Ok(()),
        false => missing("reads and writes"),
    }
}

/// Registers the pool in as few pieces as the kernel allows; returns how many buffers are in each.
fn register(ring: &IoUring, pool: &BufferPool) -> io::Result<u32> {
    let (size, count) = (pool.buffer_bytes(), pool.in_one_piece());
    let per_piece = (REGISTERED_BYTES_MAX / size).min(count);
    if per_piece == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "one buffer is larger than 1 GiB"));
    }
    let piece = |first: usize| libc::iovec {
        // SAFETY: `first < count`, so the piece starts inside of the pool's memory.
        iov_base: unsafe { pool.start().add(first * size) }.cast(),
        iov_len: per_piece.min(count - first) * size,
    };
    let pieces: Vec<libc::iovec> = (0..count).step_by(per_piece).map(piece).collect();
    // SAFETY: the pieces cover exactly the pool's memory, which `Uring` keeps alive as long as the ring.
    unsafe { ring.submitter().register_buffers(&pieces) }?;
    Ok(per_piece as u32)
}
