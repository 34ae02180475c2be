//! Facts about the heap. The tests share it, since there is one, and take turns.
#![allow(clippy::unwrap_used)]

use std::alloc::System;

use super::*;

static HERE: CountedHeap<System> = CountedHeap(System);
static TURN: Mutex<()> = Mutex::new(());
const MIB: usize = 1 << 20;

struct Block {
    start: *mut u8,
    layout: Layout,
}

impl Block {
    fn new(bytes: usize) -> Block {
        let layout = Layout::from_size_align(bytes, 64).unwrap();
        // SAFETY: no size in these tests is zero.
        let start = unsafe { HERE.alloc(layout) };
        assert!(!start.is_null());
        Block { start, layout }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is this value's alone, and mapped memory is initialised.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: made by the same allocator with the same layout.
        unsafe { HERE.dealloc(self.start, self.layout) }
    }
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn used_and_kept_bytes_never_exceed_the_most_that_was_used_at_once() {
    let _turn = turn();
    let mut live: Vec<Block> = Vec::new();
    let mut state = 7u64;
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (state >> 33) as usize;
        match draw % 5 {
            0..3 if live.len() < 60 => live.push(Block::new(LARGE + draw % (3 * MIB))),
            _ if live.is_empty() => {}
            _ => drop(live.swap_remove(draw % live.len())),
        }
        let bytes = bytes();
        assert!(bytes.used + bytes.kept <= bytes.peak, "{bytes:?}");
    }
}

#[test]
fn blocks_do_not_overlap_and_keep_what_is_written() {
    let _turn = turn();
    let mut blocks: Vec<Block> = (0..40).map(|at| Block::new(LARGE + at * 5000)).collect();
    for (at, block) in blocks.iter_mut().enumerate() {
        block.bytes().fill(at as u8);
    }
    for at in (0..40).rev().step_by(3) {
        drop(blocks.remove(at));
    }
    let mut more: Vec<Block> = (0..20).map(|at| Block::new(LARGE + at * 9000)).collect();
    more.iter_mut().for_each(|block| block.bytes().fill(255));
    for block in &mut blocks {
        let first = block.bytes()[0];
        assert!(first < 40 && block.bytes().iter().all(|&byte| byte == first));
    }
}

#[test]
fn zeroed_blocks_are_zero_whether_fresh_or_used_before() {
    let _turn = turn();
    Block::new(5 * MIB).bytes().fill(9);
    for _ in 0..2 {
        let layout = Layout::from_size_align(4 * MIB, 64).unwrap();
        // SAFETY: the size is not zero.
        let start = unsafe { HERE.alloc_zeroed(layout) };
        let mut block = Block { start, layout };
        assert!(block.bytes().iter().all(|&byte| byte == 0));
        block.bytes().fill(1);
    }
}

#[test]
fn growing_and_shrinking_across_the_threshold_keeps_the_content() {
    let _turn = turn();
    let mut layout = Layout::from_size_align(1000, 8).unwrap();
    // SAFETY: sizes are not zero; block and layout always belong together.
    let mut start = unsafe { HERE.alloc(layout) };
    // SAFETY: the block has 1000 bytes.
    unsafe { start.write_bytes(42, 1000) };
    for size in [LARGE - 1, LARGE, LARGE + 1, 3 * MIB, 3 * MIB + 1, LARGE, 2000] {
        // SAFETY: as above.
        start = unsafe { HERE.realloc(start, layout, size) };
        layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: every size is at least 1000, and the first 1000 bytes were written.
        assert!(unsafe { std::slice::from_raw_parts(start, 1000) }.iter().all(|&byte| byte == 42), "{size}");
    }
    // SAFETY: as above.
    unsafe { HERE.dealloc(start, layout) };
}

#[test]
fn claimed_bytes_make_kept_pages_go() {
    let _turn = turn();
    drop(Block::new(64 * MIB));
    let before = bytes();
    assert!(before.kept >= 64 * MIB as u64, "{before:?}");
    let claimed = (before.peak - before.used) as usize;
    claim(claimed);
    assert_eq!(bytes().kept, 0);
    unclaim(claimed);
    assert_eq!(bytes().used, before.used);
}

#[test]
#[cfg(target_os = "linux")]
fn pages_handed_back_are_no_longer_resident() {
    let _turn = turn();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    Block::new(256 * MIB).bytes().fill(3);
    let kept = resident();
    heap().ranges.keep_at_most(0);
    assert!(resident() + 200 * MIB < kept, "{} after, {kept} before", resident());
}
