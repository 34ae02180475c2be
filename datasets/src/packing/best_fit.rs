//! Best-fit decreasing.
//!
//! In:    lengths, longest first; the length of a packed row.
//! Out:   the packed row of each.
//! Never: looks at rows to come.

use super::numbers::Numbers;

/// No group.
const NONE: u32 = u32::MAX;

/// Groups by the room left in them: for each room the group that came to it last, and below it those that came before.
struct Rooms {
    last: Vec<u32>,
    below: Vec<u32>,
    taken: Numbers,
}

/// The group of each length, and the number of groups: each goes into the fullest group that still takes it, of several the one that
/// was filled last. A length beyond `group_length` has a group by itself.
pub(crate) fn best_fit(lengths: impl Iterator<Item = usize>, group_length: usize) -> (Vec<u32>, usize) {
    let mut rooms = Rooms { last: vec![NONE; group_length + 1], below: Vec::new(), taken: Numbers::new(group_length) };
    let group_of = lengths.map(|needed| rooms.place(needed, group_length)).collect();
    (group_of, rooms.below.len())
}

impl Rooms {
    fn place(&mut self, needed: usize, group_length: usize) -> u32 {
        let (group, room) = match self.taken.at_least(needed) {
            Some(room) => (self.pop(room), room),
            None => {
                self.below.push(NONE);
                (self.below.len() as u32 - 1, group_length.max(needed))
            }
        };
        self.push(group, room - needed);
        group
    }

    fn pop(&mut self, room: usize) -> u32 {
        let group = self.last[room];
        self.last[room] = self.below[group as usize];
        if self.last[room] == NONE {
            self.taken.remove(room);
        }
        group
    }

    fn push(&mut self, group: u32, room: usize) {
        self.below[group as usize] = self.last[room];
        self.last[room] = group;
        self.taken.insert(room);
    }
}
