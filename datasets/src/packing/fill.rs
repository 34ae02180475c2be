//! Packed rows one after the other, each filled as well as the rows that are left allow.
//!
//! In:    how many rows there are of each length; the length of a packed row.
//! Out:   patterns of lengths and how often each is used.
//! Never: searches longer than a bound; looks at anything but lengths.
//!
//! Source: the minimum-bin-slack heuristic of Gupta and Ho 1999, "A new heuristic algorithm for the one-dimensional bin-packing problem",
//! with the longest row fixed in each pack (Fleszar and Hindi 2002) and a slack that is good enough.

use super::numbers::Numbers;

/// Lengths tried for one pattern before the best so far is taken.
const TRIES_MAX: usize = 2000;
/// A pattern is good enough when it leaves at most this share of the packed row empty, as a divisor.
const SLACK_DIVISOR: usize = 512;

/// Lengths that stand together in `times` packed rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Not increasing.
    pub(crate) lengths: Vec<usize>,
    /// Packed rows.
    pub(crate) times: u32,
}

/// Rows that are left, by length.
struct Left {
    counts: Vec<u32>,
    lengths: Numbers,
}

impl Left {
    fn take(&mut self, length: usize, count: u32) {
        self.counts[length] -= count;
        if self.counts[length] == 0 {
            self.lengths.remove(length);
        }
    }

    fn put_back(&mut self, length: usize) {
        self.counts[length] += 1;
        self.lengths.insert(length);
    }
}

/// Packs `counts[length]` rows of each length, all of them from 1 to `group_length`.
pub(crate) fn fill(counts: Vec<u32>, group_length: usize) -> Vec<Pattern> {
    let mut left = Left { lengths: Numbers::new(group_length), counts };
    (1..=group_length).filter(|length| left.counts[*length] > 0).for_each(|length| left.lengths.insert(length));
    let mut patterns = Vec::new();
    while let Some(longest) = left.lengths.at_most(group_length) {
        let mut lengths = vec![longest];
        left.take(longest, 1);
        lengths.extend(best_filling(&mut left, group_length - longest, group_length / SLACK_DIVISOR));
        left.put_back(longest);
        let runs = || lengths.chunk_by(|a, b| a == b);
        let times = runs().map(|run| left.counts[run[0]] / run.len() as u32).min().unwrap_or(0);
        runs().for_each(|run| left.take(run[0], times * run.len() as u32));
        patterns.push(Pattern { lengths, times });
    }
    patterns
}

/// The lengths that leave least of `room`, not increasing: depth first, longest first, until at most `slack` is left or enough was
/// tried.
fn best_filling(left: &mut Left, mut room: usize, slack: usize) -> Vec<usize> {
    let (mut chosen, mut best, mut best_room) = (Vec::new(), Vec::new(), room);
    let (mut limit, mut tries) = (room, 0);
    while best_room > slack && tries < TRIES_MAX {
        match left.lengths.at_most(limit.min(room)) {
            Some(length) => {
                left.take(length, 1);
                chosen.push(length);
                (room, limit, tries) = (room - length, length, tries + 1);
                if room < best_room {
                    best.clone_from(&chosen);
                    best_room = room;
                }
            }
            None => {
                let Some(length) = chosen.pop() else { break };
                left.put_back(length);
                (room, limit) = (room + length, length - 1);
            }
        }
    }
    chosen.into_iter().for_each(|length| left.put_back(length));
    best
}
