//! What a disk may hold after a power cut: the recorded operations replayed, with any of those lost that nothing had synced.
//!
//! In:    a root folder and the [`Operation`]s that real code made in it ([`Recording`](super::Recording)).
//! Out:   for every moment, the trees that may be found when power is back, as real folders.
//! Never: trusts more than POSIX promises: an append is on the disk once its file was synced, a name once its folder was.
//!
//! Each append, new name, rename and removal is lost or kept by itself, whatever came before it. A rename or an exchange is never half done.
//! Real file systems are kinder: ext4 keeps the order of names, and a synced file's name with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Operation;

/// With so many unsynced operations every subset of them is tried; with more, the regular ones and some at random.
const ALL_SUBSETS_OF: usize = 7;

/// A file or folder; its place in [`Cuts::nodes`] never changes, whatever its name.
type Node = usize;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    File(Vec<u8>),
    Folder(BTreeMap<String, Tree>),
}

/// An operation in terms of nodes.
#[derive(Debug, Clone)]
enum Change {
    Append { file: Node, at: usize, bytes: Vec<u8> },
    Link { folder: Node, name: String, node: Node },
    Unlink { folder: Node, name: String, node: Node },
    Rename { from: (Node, String), to: (Node, String), node: Node },
    Exchange { one: (Node, String, Node), other: (Node, String, Node) },
}

impl Change {
    /// Files and folders whose sync puts it on the disk: all of them must have been.
    fn homes(&self) -> Vec<Node> {
        match self {
            Change::Append { file, .. } => vec![*file],
            Change::Link { folder, .. } | Change::Unlink { folder, .. } => vec![*folder],
            Change::Rename { from, to, .. } => vec![from.0, to.0],
            Change::Exchange { one, other } => vec![one.0, other.0],
        }
    }
}

enum Step {
    Change(Change),
    Sync(Node),
}

/// All moments of a recording.
pub struct Cuts {
    root: PathBuf,
    steps: Vec<Step>,
    /// Number of nodes; the root is node 0.
    nodes: usize,
    folders: BTreeSet<Node>,
    /// Names as they are while the operations go on.
    names: BTreeMap<(Node, String), Node>,
    lengths: BTreeMap<Node, usize>,
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Moments of a power cut.
    pub moments: usize,
    /// Sets of lost operations, over all moments.
    pub losses: usize,
    /// Different trees that were found then.
    pub trees: usize,
}

impl Cuts {
    /// Operations that began in an empty `root`; those outside of it are left out.
    pub fn of(root: &Path, operations: &[Operation]) -> Cuts {
        let mut cuts = Cuts {
            root: root.to_path_buf(),
            steps: Vec::new(),
            nodes: 1,
            folders: BTreeSet::from([0]),
            names: BTreeMap::new(),
            lengths: BTreeMap::new(),
        };
        operations.iter().for_each(|operation| cuts.add(operation));
        cuts
    }

    /// Calls `check` with a folder for every tree that may be found, and with the number of operations that had been made.
    ///
    /// # Errors
    /// What the system says while a folder is made.
    pub fn each(&self, seed: u64, check: &mut dyn FnMut(usize, &Path)) -> io::Result<Tried> {
        let mut tried = Tried::default();
        let mut random = seed | 1;
        for moment in 0..=self.steps.len() {
            let unsynced = self.unsynced(moment);
            let mut seen = BTreeSet::new();
            tried.moments += 1;
            for lost in losses(unsynced.len(), &mut random) {
                let lost: BTreeSet<usize> =
                    unsynced.iter().zip(lost).filter(|(_, lost)| *lost).map(|(&i, _)| i).collect();
                tried.losses += 1;
                let tree = self.tree(moment, &lost);
                if seen.contains(&tree) {
                    continue;
                }
                tried.trees += 1;
                let folder = tempfile::tempdir()?;
                write(&tree, &folder.path().join("disk"))?;
                check(moment, &folder.path().join("disk"));
                seen.insert(tree);
            }
        }
        Ok(tried)
    }

    fn add(&mut self, operation: &Operation) {
        let step = match operation {
            Operation::CreateFolder(path) | Operation::CreateFile(path) => {
                let Some((folder, name)) = self.place(path) else { return self.none() };
                let node = self.nodes;
                self.nodes += 1;
                if matches!(operation, Operation::CreateFolder(_)) {
                    self.folders.insert(node);
                }
                self.names.insert((folder, name.clone()), node);
                Step::Change(Change::Link { folder, name, node })
            }
            Operation::Append(path, bytes) => {
                let Some(file) = self.node(path) else { return self.none() };
                let at = self.lengths.entry(file).or_default();
                let step = Step::Change(Change::Append { file, at: *at, bytes: bytes.clone() });
                *at += bytes.len();
                step
            }
            Operation::SyncFile(path) | Operation::SyncFolder(path) => match self.node(path) {
                Some(node) => Step::Sync(node),
                None => return self.none(),
            },
            Operation::Rename(from, to) => {
                let (Some(node), Some(from), Some(to)) = (self.node(from), self.place(from), self.place(to)) else {
                    return self.none();
                };
                self.names.remove(&from);
                self.names.insert(to.clone(), node);
                Step::Change(Change::Rename { from, to, node })
            }
            Operation::Exchange(one, other) => {
                let (Some(a), Some(b)) = (self.node(one), self.node(other)) else { return self.none() };
                let (Some(one), Some(other)) = (self.place(one), self.place(other)) else { return self.none() };
                self.names.insert(one.clone(), b);
                self.names.insert(other.clone(), a);
                Step::Change(Change::Exchange { one: (one.0, one.1, a), other: (other.0, other.1, b) })
            }
            Operation::RemoveFile(path) | Operation::RemoveFolder(path) => {
                let (Some(node), Some((folder, name))) = (self.node(path), self.place(path)) else {
                    return self.none();
                };
                self.names.remove(&(folder, name.clone()));
                Step::Change(Change::Unlink { folder, name, node })
            }
        };
        self.steps.push(step);
    }

    /// An operation outside of the root: the moments keep their numbers.
    fn none(&mut self) {
        self.steps.push(Step::Sync(Node::MAX));
    }

    fn node(&self, path: &Path) -> Option<Node> {
        let relative = path.strip_prefix(&self.root).ok()?;
        let mut node = 0;
        for part in relative.components() {
            node = *self.names.get(&(node, part.as_os_str().to_string_lossy().into_owned()))?;
        }
        Some(node)
    }

    fn place(&self, path: &Path) -> Option<(Node, String)> {
        Some((self.node(path.parent()?)?, path.file_name()?.to_string_lossy().into_owned()))
    }

    /// Operations before `moment` that no sync has put on the disk.
    fn unsynced(&self, moment: usize) -> Vec<usize> {
        let synced_after = |at: usize, home: Node| {
            self.steps[at..moment].iter().any(|step| matches!(step, Step::Sync(node) if *node == home))
        };
        let is_open = |at: &usize| match &self.steps[*at] {
            Step::Change(change) => !change.homes().into_iter().all(|home| synced_after(*at, home)),
            Step::Sync(_) => false,
        };
        (0..moment).filter(is_open).collect()
    }

    /// What the disk holds after the first `moment` operations without those in `lost`.
    fn tree(&self, moment: usize, lost: &BTreeSet<usize>) -> Tree {
        let mut names: BTreeMap<(Node, String), Node> = BTreeMap::new();
        let mut files: BTreeMap<Node, Vec<u8>> = BTreeMap::new();
        for (at, step) in self.steps[..moment].iter().enumerate() {
            match step {
                Step::Change(change) if !lost.contains(&at) => apply(change, &mut names, &mut files),
                _ => {}
            }
        }
        self.folder(0, &names, &files)
    }

    fn folder(&self, node: Node, names: &BTreeMap<(Node, String), Node>, files: &BTreeMap<Node, Vec<u8>>) -> Tree {
        let inside = names.range((node, String::new())..).take_while(|((folder, _), _)| *folder == node);
        let tree = |child: Node| match self.folders.contains(&child) {
            true => self.folder(child, names, files),
            false => Tree::File(files.get(&child).cloned().unwrap_or_default()),
        };
        Tree::Folder(inside.map(|((_, name), child)| (name.clone(), tree(*child))).collect())
    }
}

fn apply(change: &Change, names: &mut BTreeMap<(Node, String), Node>, files: &mut BTreeMap<Node, Vec<u8>>) {
    // A name goes only if it still is the node's: what put another there may have been kept.
    let unlink = |names: &mut BTreeMap<(Node, String), Node>, place: (Node, String), node: Node| {
        if names.get(&place) == Some(&node) {
            names.remove(&place);
        }
    };
    match change.clone() {
        Change::Append { file, at, bytes } => {
            let content = files.entry(file).or_default();
            // What was lost before it is a hole.
            content.resize(content.len().max(at + bytes.len()), 0);
            content[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Change::Link { folder, name, node } => drop(names.insert((folder, name), node)),
        Change::Unlink { folder, name, node } => unlink(names, (folder, name), node),
        Change::Rename { from, to, node } => {
            unlink(names, from, node);
            names.insert(to, node);
        }
        Change::Exchange { one, other } => {
            names.insert((one.0, one.1), other.2);
            names.insert((other.0, other.1), one.2);
        }
    }
}

/// Which of `count` operations are lost: all subsets if there are few; else each prefix, each suffix, each alone, all but each, and 64 at random.
fn losses(count: usize, random: &mut u64) -> Vec<Vec<bool>> {
    if count <= ALL_SUBSETS_OF {
        return (0..1usize << count).map(|set| (0..count).map(|bit| set >> bit & 1 == 1).collect()).collect();
    }
    let mut sets: Vec<Vec<bool>> = Vec::with_capacity(4 * count + 64);
    for edge in 0..=count {
        sets.push((0..count).map(|at| at < edge).collect());
        sets.push((0..count).map(|at| at >= edge).collect());
        sets.push((0..count).map(|at| at == edge).collect());
        sets.push((0..count).map(|at| at != edge).collect());
    }
    sets.extend((0..64).map(|_| (0..count).map(|_| next(random) >> 32 & 1 == 1).collect()));
    sets
}

/// Marsaglia's xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn write(tree: &Tree, path: &Path) -> io::Result<()> {
    match tree {
        Tree::File(bytes) => fs::write(path, bytes),
        Tree::Folder(inside) => {
            fs::create_dir(path)?;
            inside.iter().try_for_each(|(name, tree)| write(tree, &path.join(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Recording, publish_directory, publish_file, staging_folder, write_staged};
    use super::*;

    /// What `check` says of every tree of what `work` did, and how many there were.
    fn cuts(work: impl FnOnce(&Path, &Recording), check: &mut dyn FnMut(usize, &Path)) -> Tried {
        let folder = tempfile::tempdir().unwrap();
        let recording = Recording::start();
        work(folder.path(), &recording);
        let operations = recording.stop();
        Cuts::of(folder.path(), &operations).each(1, check).unwrap()
    }

    #[test]
    fn a_published_file_holds_all_of_the_old_bytes_or_all_of_the_new_ones_after_any_power_cut() {
        let mut published = Vec::new();
        let mut found = BTreeSet::new();
        let work = |root: &Path, recording: &Recording| {
            for bytes in [b"one", b"two"] {
                publish_file(&root.join("deep/plan.json"), bytes).unwrap();
                published.push(recording.len());
            }
        };
        let mut states = Vec::new();
        let tried = cuts(work, &mut |moment, disk| {
            states.push((moment, fs::read_to_string(disk.join("deep/plan.json")).ok()));
        });
        for (moment, text) in states {
            match text.as_deref() {
                None => assert!(moment < published[0], "lost after operation {moment}"),
                Some("one") => assert!(moment < published[1]),
                Some("two") => assert!(moment > published[0]),
                Some(other) => panic!("{other:?} after operation {moment}"),
            }
            found.insert(text);
        }
        assert_eq!(found.len(), 3, "nothing, the old and the new text are all found at some moment: {tried:?}");
    }

    #[test]
    fn a_replaced_folder_is_whole_at_every_moment() {
        let mut published = usize::MAX;
        let work = |root: &Path, recording: &Recording| {
            for round in [b"1", b"2"] {
                let staging = staging_folder(&root.join("adapter")).unwrap();
                write_staged(&staging.join("a"), round).unwrap();
                write_staged(&staging.join("b"), round).unwrap();
                publish_directory(&staging, &root.join("adapter")).unwrap();
                published = published.min(recording.len());
            }
        };
        let mut states = Vec::new();
        let tried = cuts(work, &mut |moment, disk| {
            let read = |name: &str| fs::read(disk.join("adapter").join(name)).ok();
            states.push((moment, disk.join("adapter").exists(), read("a"), read("b")));
        });
        assert!(tried.losses > 60, "{tried:?}: too few to prove anything");
        for (moment, exists, a, b) in states {
            assert!(a == b && a.is_some() == exists, "half a folder after operation {moment}: {a:?} {b:?}");
            assert!(exists || moment < published, "no folder after operation {moment}");
        }
    }

    #[test]
    fn the_model_itself_loses_what_was_not_synced() {
        let work = |root: &Path, _: &Recording| {
            let file = root.join("f");
            let mut staged = super::super::StagedFile::create(&file).unwrap();
            staged.write(b"ab").unwrap();
            staged.write(b"cd").unwrap();
        };
        let mut found = BTreeSet::new();
        cuts(work, &mut |_, disk| {
            found.insert(fs::read(disk.join("f")).ok());
        });
        let expected: [Option<&[u8]>; 5] = [None, Some(b""), Some(b"ab"), Some(b"abcd"), Some(b"\0\0cd")];
        assert_eq!(found, expected.into_iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect());
    }
}
