//! Why there is no such part or machine.
//!
//! In:    what was typed, or a catalogue file.
//! Out:   one line each: what, where, the numbers, what to do.
//! Never: more than one line.

/// Why there is no such part or machine.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HardwareError {
    /// No entry has that name.
    #[error("unknown {kind} \"{name}\"; nearest: {nearest}; all of them: tune hardware list {kind}")]
    Unknown {
        /// `gpu`, `cpu`, `ssd`.
        kind: &'static str,
        /// As typed.
        name: String,
        /// The three nearest names.
        nearest: String,
    },
    /// Several entries begin with that name.
    #[error("which {kind}? \"{name}\" is sold as {variants}; take one of these names")]
    Ambiguous {
        /// `gpu`, `cpu`, `ssd`.
        kind: &'static str,
        /// As typed.
        name: String,
        /// Their names.
        variants: String,
    },
    /// An absurd number of parts.
    #[error("{kind} \"{text}\": {count} of them; expected 1 to {most}, as in {name}x2")]
    Count {
        /// `gpu`, `ssd`.
        kind: &'static str,
        /// As typed.
        text: String,
        /// As typed.
        count: i64,
        /// The most that is planned for.
        most: u32,
        /// The part.
        name: String,
    },
    /// An absurd amount of host memory.
    #[error("ram of {asked_bytes} bytes: expected {} to {}, such as 64GB", crate::units::bytes_text(*least_bytes), crate::units::bytes_text(*most_bytes))]
    Ram {
        /// As typed.
        asked_bytes: u64,
        /// The least that a system starts with and leaves room.
        least_bytes: u64,
        /// The most that any platform takes.
        most_bytes: u64,
    },
    /// A drive described by its size, and an absurd one.
    #[error("a drive of \"{text}\": expected a size from 100GB to 64TB or a name of the list: tune hardware list ssd")]
    DriveSize {
        /// As typed.
        text: String,
    },
    /// A unified machine together with a part that it does not take.
    #[error("{name} is a whole machine: {why}")]
    Unified {
        /// The machine.
        name: String,
        /// What does not go, with the numbers, and what to do.
        why: String,
    },
    /// A catalogue file is no TOML, or a value has the wrong type.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// What the parser says, in one line.
        message: String,
    },
    /// A catalogue file has a key that no entry has.
    #[error("unknown key `{key}`: {place}; {hint}")]
    UnknownKey {
        /// File and line.
        place: String,
        /// As written.
        key: String,
        /// The nearest key, or all of them.
        hint: String,
    },
    /// A number in a catalogue file that no part has.
    #[error("{place}: {name}: {key} = {value}; expected {least} to {most} {unit}")]
    Implausible {
        /// File and line of the entry.
        place: String,
        /// The entry.
        name: String,
        /// The key.
        key: &'static str,
        /// As written.
        value: f64,
        /// Bound.
        least: f64,
        /// Bound.
        most: f64,
        /// Unit.
        unit: &'static str,
    },
    /// A name that cannot be typed, or keys that contradict each other.
    #[error("{place}: {name}: {why}")]
    Entry {
        /// File and line of the entry.
        place: String,
        /// The entry.
        name: String,
        /// What is wrong and what to do.
        why: String,
    },
}
