//! Rows into packed rows of bounded length.
//!
//! In:    rows, their lengths, the length of a packed row.
//! Out:   groups of rows, and the share of packed rows that tokens fill.
//! Never: cuts a row, or leaves one out: one that is too long by itself is a group by itself.

mod best_fit;
mod fill;
mod numbers;

use crate::cache::Dataset;
use crate::order::WINDOW_ROWS;
use fill::Pattern;

/// Rows in groups: two flat lists, 4 bytes a row and 4 a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Groups {
    rows: Vec<u32>,
    /// Index into `rows` where each group begins, and the end of the last.
    starts: Vec<u32>,
}

impl Groups {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The rows of group `index`.
    pub(crate) fn group(&self, index: usize) -> &[u32] {
        &self.rows[self.starts[index] as usize..self.starts[index + 1] as usize]
    }

    /// The same groups in another order.
    pub(crate) fn arranged(&self, order: &[u32]) -> Groups {
        let mut arranged =
            Groups { rows: Vec::with_capacity(self.rows.len()), starts: Vec::with_capacity(self.starts.len()) };
        arranged.starts.push(0);
        for &group in order {
            arranged.rows.extend_from_slice(self.group(group as usize));
            arranged.starts.push(arranged.rows.len() as u32);
        }
        arranged
    }
}

/// Packs rows, `lengths[i]` being the tokens of `rows[i]`, in two ways and takes the one with fewer groups: best-fit decreasing, or group after group as full as can be. Ties of length
/// keep the order given, and the number of groups depends on the lengths only. About 24 bytes a row while it works, for at most
/// 2^32 - 1 rows of at least one token.
pub(crate) fn pack(rows: &[u32], lengths: &[u32], group_length: usize) -> Groups {
    let mut sorted: Vec<(u32, u32)> = lengths.iter().copied().zip(rows.iter().copied()).collect();
    sorted.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let (group_of, groups) = best_fit::best_fit(sorted.iter().map(|(length, _)| *length as usize), group_length);
    let too_long = sorted.partition_point(|(length, _)| *length as usize > group_length);
    let mut counts = vec![0; group_length + 1];
    sorted[too_long..].iter().for_each(|(length, _)| counts[*length as usize] += 1);
    let patterns = fill::fill(counts, group_length);
    let filled = too_long + patterns.iter().map(|pattern| pattern.times as usize).sum::<usize>();
    match filled < groups {
        true => by_pattern(&sorted, too_long, &patterns),
        false => by_group(&sorted, &group_of, groups),
    }
}

/// Counting sort by group; rows of a group stay in order of length.
fn by_group(sorted: &[(u32, u32)], group_of: &[u32], groups: usize) -> Groups {
    let mut starts = vec![0; groups + 1];
    group_of.iter().for_each(|group| starts[*group as usize + 1] += 1);
    (0..groups).for_each(|group| starts[group + 1] += starts[group]);
    let mut next = starts.clone();
    let mut rows = vec![0; sorted.len()];
    for (&(_, row), &group) in sorted.iter().zip(group_of) {
        rows[next[group as usize] as usize] = row;
        next[group as usize] += 1;
    }
    Groups { rows, starts }
}

/// Rows that are too long each by itself, then the patterns, each length served by the next row that has it.
fn by_pattern(sorted: &[(u32, u32)], too_long: usize, patterns: &[Pattern]) -> Groups {
    let mut groups = Groups { rows: sorted[..too_long].iter().map(|(_, row)| *row).collect(), starts: Vec::new() };
    groups.starts.extend(0..=too_long as u32);
    let mut next = std::collections::HashMap::new();
    for (at, (length, _)) in sorted.iter().enumerate().skip(too_long).rev() {
        next.insert(*length as usize, at);
    }
    for pattern in patterns {
        for _ in 0..pattern.times {
            for length in &pattern.lengths {
                if let Some(at) = next.get_mut(length) {
                    groups.rows.push(sorted[*at].1);
                    *at += 1;
                }
            }
            groups.starts.push(groups.rows.len() as u32);
        }
    }
    groups
}

/// Share of packed rows that tokens fill, 0 to 1: tokens over packed rows times `length` (a row longer than that counts as a pack of
/// its own length). Each row once, in windows of 2^20 rows in file order; the order within a window changes nothing. 1 without rows.
pub fn efficiency(dataset: &Dataset, length: usize) -> f64 {
    let mut capacity = 0u64;
    for start in (0..dataset.len()).step_by(WINDOW_ROWS) {
        let rows: Vec<u32> = (start..dataset.len().min(start + WINDOW_ROWS)).map(|row| row as u32).collect();
        let lengths = dataset.lengths(&rows);
        let groups = pack(&rows, &lengths, length);
        let longer = lengths.iter().map(|own| (*own as usize).saturating_sub(length) as u64).sum::<u64>();
        capacity += groups.len() as u64 * length as u64 + longer;
    }
    if capacity == 0 { 1.0 } else { dataset.tokens() as f64 / capacity as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn groups(groups: &Groups) -> Vec<Vec<u32>> {
        (0..groups.len()).map(|index| groups.group(index).to_vec()).collect()
    }

    fn of(rows: &[u32], lengths: &[usize]) -> Vec<u32> {
        rows.iter().map(|row| lengths[*row as usize] as u32).collect()
    }

    #[test]
    fn every_row_stands_once_and_no_group_is_too_long() {
        let lengths: Vec<usize> = (0..500).map(|row| 1 + (row * 37) % 60).collect();
        let rows: Vec<u32> = (0..500).collect();
        let groups = groups(&pack(&rows, &of(&rows, &lengths), 64));
        let total = |group: &Vec<u32>| group.iter().map(|row| lengths[*row as usize]).sum::<usize>();
        assert!(groups.iter().all(|group| total(group) <= 64));
        let mut rows: Vec<u32> = groups.iter().flatten().copied().collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..500).collect::<Vec<_>>());
        let bound = lengths.iter().sum::<usize>().div_ceil(64);
        assert!(groups.len() <= bound + bound / 50 + 1, "{} groups, {bound} would be perfect", groups.len());
    }

    #[test]
    fn a_row_longer_than_a_group_stands_alone() {
        let lengths = [10, 2, 3];
        assert_eq!(groups(&pack(&[1, 0, 2], &of(&[1, 0, 2], &lengths), 5)), vec![vec![0], vec![2, 1]]);
    }

    /// The same by its definition: among all groups the one with least room that suffices, the latest to reach that room first.
    fn by_definition(rows: &[u32], lengths: &[usize], group_length: usize) -> Vec<Vec<u32>> {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| std::cmp::Reverse(lengths[*row as usize]));
        let mut groups: Vec<(usize, usize, Vec<u32>)> = Vec::new();
        for (time, row) in rows.into_iter().enumerate() {
            let needed = lengths[row as usize];
            let fitting = groups.iter_mut().filter(|(room, ..)| *room >= needed);
            match fitting.min_by_key(|(room, time, _)| (*room, std::cmp::Reverse(*time))) {
                Some((room, touched, group)) => {
                    (*room, *touched) = (*room - needed, time);
                    group.push(row);
                }
                None => groups.push((group_length.max(needed) - needed, time, vec![row])),
            }
        }
        groups.into_iter().map(|(.., group)| group).collect()
    }

    /// Best-fit decreasing by a plain search.
    #[test]
    fn best_fit_finds_what_its_definition_finds_and_packing_is_never_worse_on_random_lengths() {
        let mut random = Random::new(11, 0);
        for group_length in [1, 5, 63, 64, 65, 700, 5000] {
            let lengths: Vec<usize> = (0..400).map(|_| 1 + random.below(group_length + group_length / 8 + 1)).collect();
            let mut rows: Vec<u32> = (0..400).collect();
            random.shuffle(&mut rows);
            let expected = by_definition(&rows, &lengths, group_length);
            let packed = groups(&pack(&rows, &of(&rows, &lengths), group_length));
            let room = |group: &Vec<u32>| group.iter().map(|row| lengths[*row as usize]).sum::<usize>() <= group_length;
            assert!(packed.iter().all(|group| group.len() == 1 || room(group)));
            let mut all: Vec<u32> = packed.iter().flatten().copied().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..400) && packed.len() <= expected.len());
            rows.sort_by_key(|row| std::cmp::Reverse(lengths[*row as usize]));
            let sorted: Vec<(u32, u32)> = rows.iter().map(|row| (lengths[*row as usize] as u32, *row)).collect();
            let (group_of, count) = best_fit::best_fit(sorted.iter().map(|(length, _)| *length as usize), group_length);
            assert_eq!(groups(&by_group(&sorted, &group_of, count)), expected, "length {group_length}");
        }
    }
}
