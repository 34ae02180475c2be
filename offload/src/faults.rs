//! Faults on purpose: what disks, kernels and containers do to a program, driven by a seed.
//!
//! In:    a [`FaultPlan`].
//! Out:   an engine that misbehaves accordingly, below all of the code that has to cope with it.
//! Never: runs unless a plan is given.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use crate::memory::PAGE;
use crate::store::EngineKind;
use crate::store::engine::{Completion, Direction, Engine, Op};

/// How often which fault happens. Probabilities are per request to the engine, 0.0 to 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// Start of the random numbers.
    pub seed: u64,
    /// Less is read or written than asked for, and said so.
    pub short: f64,
    /// The request fails with EIO.
    pub eio: f64,
    /// A write fails with ENOSPC.
    pub enospc: f64,
    /// The request fails with EINTR or EAGAIN, which asks for another try.
    pub interrupted: f64,
    /// The completion comes up to `delay_max` late.
    pub delay: f64,
    /// The longest delay.
    pub delay_max: Duration,
    /// Completions of one round come in another order, and some of them a round later.
    pub reorder: f64,
    /// One bit of what was read is wrong.
    pub flip: f64,
    /// Only a prefix of a write reaches the file while success is reported.
    pub torn: f64,
    /// The completion never comes.
    pub lost: f64,
    /// After so many requests the engine refuses everything.
    pub refuse_after: Option<u64>,
    /// How long nothing may complete before the watchdog gives up, instead of its minute.
    pub stall_after: Duration,
}

impl FaultPlan {
    /// No fault at all.
    pub fn none(seed: u64) -> FaultPlan {
        FaultPlan {
            seed,
            short: 0.0,
            eio: 0.0,
            enospc: 0.0,
            interrupted: 0.0,
            delay: 0.0,
            delay_max: Duration::from_millis(1),
            reorder: 0.0,
            flip: 0.0,
            torn: 0.0,
            lost: 0.0,
            refuse_after: None,
            stall_after: Duration::from_secs(60),
        }
    }

    /// A mixture of faults drawn from `seed`: harmless ones often, fatal ones in about half of the plans.
    pub fn random(seed: u64) -> FaultPlan {
        let mut random = Random(seed ^ 0x5EED_FA17);
        let mut rate = |share: f64, most: f64| if random.chance(share) { random.unit() * most } else { 0.0 };
        let mut plan = FaultPlan {
            short: rate(0.6, 0.25),
            interrupted: rate(0.5, 0.1),
            delay: rate(0.3, 0.2),
            reorder: rate(0.5, 1.0),
            eio: rate(0.15, 0.1),
            enospc: rate(0.1, 0.1),
            flip: rate(0.15, 0.1),
            torn: rate(0.15, 0.1),
            lost: rate(0.03, 0.1),
            ..FaultPlan::none(seed)
        };
        if plan.lost > 0.0 {
            plan.stall_after = Duration::from_millis(50);
        }
        if random.chance(0.2) {
            plan.refuse_after = Some(random.next() % 60);
        }
        plan
    }
}

/// An engine with faults on top.
pub(crate) struct Faulty {
    inner: Box<dyn Engine>,
    plan: FaultPlan,
    requests: u64,
    /// How often each place was read and written.
    visits: HashMap<(Direction, usize, u64), u64>,
    /// For the order of completions.
    shuffle: Random,
    /// What becomes of requests that the inner engine works on.
    fates: HashMap<u64, Fate>,
    /// Completions and when they are told.
    held: Vec<(Instant, Completion)>,
    /// Completions that are never told.
    lost: Vec<Completion>,
    refusing: bool,
}

/// What becomes of one request after the inner engine has done it.
#[derive(Clone, Copy)]
struct Fate {
    op: Op,
    /// At most, or in a torn write exactly, so many bytes are reported.
    report: usize,
    kind: FateKind,
    delay: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum FateKind {
    Plain,
    Torn,
    /// A random number says which bit.
    Flip(u64),
    Lost,
}

impl Faulty {
    /// `inner` with the faults of `plan`.
    pub fn new(inner: Box<dyn Engine>, plan: FaultPlan) -> Faulty {
        let (shuffle, visits) = (Random(plan.seed), HashMap::new());
        let (fates, held, lost) = (HashMap::new(), Vec::new(), Vec::new());
        Faulty { inner, plan, requests: 0, visits, shuffle, fates, held, lost, refusing: false }
    }

    /// Random numbers for a request: they depend on its place and on how often that was asked for, not on what else goes on meanwhile,
    /// so that a run can be repeated.
    fn random_of(&mut self, op: &Op) -> Random {
        let visits = self.visits.entry((op.direction, op.file, op.offset)).or_default();
        *visits += 1;
        let mut random = Random(self.plan.seed);
        for part in [op.direction as u64, op.file as u64, op.offset, *visits] {
            random = Random(random.next() ^ part);
        }
        random
    }

    fn answer(&mut self, op: &Op, result: io::Result<usize>) {
        self.held.push((Instant::now(), Completion { token: op.token, result }));
    }

    /// An error that keeps the request from the disk, if one is due.
    fn error(&self, random: &mut Random, op: &Op) -> Option<i32> {
        let write = op.direction == Direction::Write;
        if random.chance(self.plan.interrupted) {
            return Some(if random.chance(0.5) { libc::EINTR } else { libc::EAGAIN });
        }
        if random.chance(self.plan.eio) {
            return Some(libc::EIO);
        }
        (random.chance(self.plan.enospc) && write).then_some(libc::ENOSPC)
    }

    /// Draws what becomes of `op`; returns it with the bytes really to be moved.
    fn fate(&self, random: &mut Random, mut op: Op) -> (Op, Fate) {
        let pages = (op.len / PAGE) as u64;
        let mut fate = Fate { op, report: op.len, kind: FateKind::Plain, delay: Duration::ZERO };
        if random.chance(self.plan.delay) {
            fate.delay = self.plan.delay_max.mul_f64(random.unit());
        } else if random.chance(self.plan.reorder) {
            fate.delay = Duration::from_micros(random.next() % 200);
        }
        if random.chance(self.plan.lost) {
            fate.kind = FateKind::Lost;
        } else if op.direction == Direction::Write && random.chance(self.plan.torn) {
            fate.kind = FateKind::Torn;
            op.len = (random.next() % pages.max(1)) as usize * PAGE;
        } else if op.direction == Direction::Read && random.chance(self.plan.flip) {
            fate.kind = FateKind::Flip(random.next());
        } else if random.chance(self.plan.short) {
            fate.report = 1 + (random.next() % op.len as u64) as usize;
            op.len = fate.report.next_multiple_of(PAGE).min(op.len);
        }
        (op, fate)
    }

    /// What is told about a request that the inner engine has ended.
    fn finish(&mut self, completion: Completion) {
        let Some(fate) = self.fates.remove(&completion.token) else { return };
        let Completion { token, result } = completion;
        let result = result.map(|bytes| match fate.kind {
            FateKind::Torn => fate.report,
            _ => bytes.min(fate.report),
        });
        if let (FateKind::Flip(number), Ok(bytes @ 1..)) = (fate.kind, &result) {
            let (at, bit) = ((number / 8) as usize % bytes, 1u8 << (number % 8));
            // SAFETY: the request has ended and its completion is not told yet, so by the contract of `Engine::start` the memory is
            // still this engine's; `at` lies in what was read.
            unsafe { *fate.op.memory.add(at) ^= bit };
        }
        let completion = Completion { token, result };
        if fate.kind == FateKind::Lost {
            self.lost.push(completion);
            return;
        }
        self.held.push((Instant::now() + fate.delay, completion));
    }

    /// Moves what is due from `held` to `done`, in another order if that is drawn.
    fn tell(&mut self, done: &mut Vec<Completion>) {
        let now = Instant::now();
        let mut due: Vec<Completion> = self.held.extract_if(.., |(at, _)| *at <= now).map(|(_, done)| done).collect();
        if self.shuffle.chance(self.plan.reorder) {
            for i in (1..due.len()).rev() {
                due.swap(i, (self.shuffle.next() % (i as u64 + 1)) as usize);
            }
        }
        done.append(&mut due);
    }
}

impl Engine for Faulty {
    fn kind(&self) -> EngineKind {
        self.inner.kind()
    }

    unsafe fn start(&mut self, op: Op) {
        self.requests += 1;
        if self.plan.refuse_after.is_some_and(|after| self.requests > after) {
            // Either the whole engine stops, or every request is refused, as sandboxes do it.
            match self.plan.seed.is_multiple_of(2) && self.kind() == EngineKind::IoUring {
                true => self.answer(&op, Err(io::Error::from_raw_os_error(libc::EINVAL))),
                false => self.refusing = true,
            }
            return;
        }
        let mut random = self.random_of(&op);
        if let Some(code) = self.error(&mut random, &op) {
            self.answer(&op, Err(io::Error::from_raw_os_error(code)));
            return;
        }
        let (op, fate) = self.fate(&mut random, op);
        if op.len == 0 {
            self.answer(&op, Ok(fate.report));
            return;
        }
        self.fates.insert(op.token, fate);
        // SAFETY: `op` is the caller's request or a prefix of it, under the same promise.
        unsafe { self.inner.start(op) };
    }

    fn wait(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> io::Result<()> {
        if self.refusing {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let now = Instant::now();
        let next = self.held.iter().map(|(at, _)| at.saturating_duration_since(now)).min();
        let timeout = next.map_or(timeout, |next| next.min(timeout));
        let mut ended = Vec::new();
        self.inner.wait(timeout, &mut ended)?;
        ended.into_iter().for_each(|completion| self.finish(completion));
        self.tell(done);
        Ok(())
    }

    fn abandon(&mut self, done: &mut Vec<Completion>) -> Vec<u64> {
        let mut ended = Vec::new();
        let stuck = self.inner.abandon(&mut ended);
        ended.into_iter().for_each(|completion| self.finish(completion));
        done.extend(self.held.drain(..).map(|(_, completion)| completion));
        done.append(&mut self.lost);
        stuck
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}
