//! Which engine runs, and why.
//!
//! In:    the user's choice and what the kernel allows.
//! Out:   an engine and a report for people.
//! Never: falls back silently.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::driver::publish;
use super::engine::{Completion, Engine, Op};
use super::inbox::Inbox;
use super::layout::Layout;
use super::threads::Threads;
use super::{EngineChoice, EngineKind, EngineReport};
use crate::buffer::BufferPool;
use crate::error::TierError;
use crate::faults::{FaultPlan, Faulty};
use crate::sync::Notes;

/// What every engine is made from.
#[derive(Clone)]
pub(crate) struct EngineParts {
    pub layout: Arc<Layout>,
    pub pool: BufferPool,
    pub queue_depth: usize,
    pub stall_after: Duration,
    pub faults: Option<FaultPlan>,
    pub notes: Arc<Notes>,
}

/// The engine of `choice`, or the next best if `choice` leaves that open. To be called on the I/O thread, which the ring belongs to.
pub(crate) fn choose(
    choice: EngineChoice,
    parts: &EngineParts,
    inbox: &Arc<Inbox>,
) -> Result<(Box<dyn Engine>, EngineReport), TierError> {
    let why = match choice {
        EngineChoice::Threads => "asked for".to_owned(),
        EngineChoice::Auto | EngineChoice::IoUring => match ring(parts, inbox) {
            Ok((engine, registered)) => {
                let report = report(EngineKind::IoUring, parts, registered, "io_uring: runs here".to_owned());
                return Ok((with_faults(engine, parts.faults.clone()), report));
            }
            Err(error) => {
                let reason = explain(&error);
                if choice == EngineChoice::IoUring {
                    return Err(TierError::EngineRefused { engine: "io_uring", reason });
                }
                parts.notes.add(format!(
                    "threads move the bytes because io_uring is refused: {reason}; more CPU time per byte"
                ));
                format!("io_uring refused: {reason}")
            }
        },
    };
    let engine = Threads::new(Arc::clone(&parts.layout), Arc::clone(&inbox.waker), parts.queue_depth)
        .map_err(|error| TierError::EngineRefused { engine: "threads", reason: error.to_string() })?;
    let why = format!("threads: {} of them; {why}", engine.count());
    let report = report(EngineKind::Threads, parts, false, why);
    Ok((with_faults(Box::new(engine), parts.faults.clone()), report))
}

/// The engine after another one, of kind `lost`, has stopped for `reason`.
pub(crate) fn threads_after_loss(
    parts: &EngineParts,
    inbox: &Arc<Inbox>,
    report_place: &Mutex<EngineReport>,
    lost: EngineKind,
    reason: &io::Error,
) -> Box<dyn Engine> {
    let why = format!("threads: {lost} stopped during the run: {}", explain(reason));
    publish(report_place, report(EngineKind::Threads, parts, false, why));
    // The same faults, but an engine is lost only once.
    let faults = parts.faults.clone().map(|plan| FaultPlan { refuse_after: None, seed: !plan.seed, ..plan });
    match Threads::new(Arc::clone(&parts.layout), Arc::clone(&inbox.waker), parts.queue_depth) {
        Ok(engine) => with_faults(Box::new(engine), faults),
        Err(error) => Box::new(Dead { code: error.raw_os_error().unwrap_or(libc::EAGAIN), tokens: Vec::new() }),
    }
}

#[cfg(target_os = "linux")]
fn ring(parts: &EngineParts, inbox: &Arc<Inbox>) -> io::Result<(Box<dyn Engine>, bool)> {
    let (layout, waker) = (Arc::clone(&parts.layout), Arc::clone(&inbox.waker));
    let ring = super::uring::Uring::new(layout, waker, &parts.pool, parts.queue_depth, &parts.notes)?;
    let registered = ring.registered_buffers();
    Ok((Box::new(ring), registered))
}

#[cfg(not(target_os = "linux"))]
fn ring(_parts: &EngineParts, _inbox: &Arc<Inbox>) -> io::Result<(Box<dyn Engine>, bool)> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has it"))
}

fn with_faults(engine: Box<dyn Engine>, plan: Option<FaultPlan>) -> Box<dyn Engine> {
    match plan {
        Some(plan) => Box::new(Faulty::new(engine, plan)),
        None => engine,
    }
}

fn report(kind: EngineKind, parts: &EngineParts, registered_buffers: bool, why: String) -> EngineReport {
    let direct = parts.layout.files.iter().map(|file| file.direct).collect();
    EngineReport { kind, direct, registered_buffers, why }
}

/// What an error of the kernel usually means.
fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (the container's seccomp profile, or kernel.io_uring_disabled)",
        Some(libc::ENOSYS) => " (a kernel without io_uring, or the container's seccomp profile)",
        Some(libc::ENOMEM) => " (the memlock limit, ulimit -l)",
        _ => "",
    };
    format!("{error}{hint}")
}

/// When not even threads can be had: everything fails with the reason.
struct Dead {
    code: i32,
    tokens: Vec<u64>,
}

impl Engine for Dead {
    fn kind(&self) -> EngineKind {
        EngineKind::Threads
    }

    unsafe fn start(&mut self, op: Op) {
        self.tokens.push(op.token);
    }

    fn wait(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> io::Result<()> {
        if self.tokens.is_empty() {
            std::thread::sleep(timeout.min(Duration::from_millis(10)));
        }
        let code = if self.code == libc::EAGAIN { libc::EIO } else { self.code };
        let failed = |token| Completion { token, result: Err(io::Error::from_raw_os_error(code)) };
        done.extend(self.tokens.drain(..).map(failed));
        Ok(())
    }

    fn abandon(&mut self, _done: &mut Vec<Completion>) -> Vec<u64> {
        self.tokens.clear();
        Vec::new()
    }
}
