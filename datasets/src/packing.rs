//! Rows into packed rows of bounded length.
//!
//! In:    shuffled rows, their lengths, the length of a packed row.
//! Out:   groups of rows.
//! Never: cuts a row, or leaves one out: one that is too long by itself is a group by itself.

use std::collections::BTreeMap;

/// Best-fit decreasing: longest rows first, each into the fullest group that still takes it. Ties keep the order given,
/// and the number of groups depends on the lengths only.
pub(crate) fn best_fit(mut rows: Vec<u32>, length: impl Fn(u32) -> usize, group_length: usize) -> Vec<Vec<u32>> {
    rows.sort_by_key(|&row| std::cmp::Reverse(length(row)));
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in rows {
        let needed = length(row);
        let fullest = by_room.range(needed..).next().map(|(room, _)| *room);
        let (group, room) = match fullest.and_then(|room| Some((take(&mut by_room, room)?, room))) {
            Some(found) => found,
            None => {
                groups.push(Vec::new());
                (groups.len() - 1, group_length.max(needed))
            }
        };
        groups[group].push(row);
        by_room.entry(room - needed).or_default().push(group);
    }
    groups
}

/// Takes one group with exactly `room` left.
fn take(by_room: &mut BTreeMap<usize, Vec<usize>>, room: usize) -> Option<usize> {
    let groups = by_room.get_mut(&room)?;
    let group = groups.pop();
    if groups.is_empty() {
        by_room.remove(&room);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_stands_once_and_no_group_is_too_long() {
        let lengths: Vec<usize> = (0..500).map(|row| 1 + (row * 37) % 60).collect();
        let groups = best_fit((0..500).collect(), |row| lengths[row as usize], 64);
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
        assert_eq!(best_fit(vec![1, 0, 2], |row| lengths[row as usize], 5), vec![vec![0], vec![2, 1]]);
    }
}
