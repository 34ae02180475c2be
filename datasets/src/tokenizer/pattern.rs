//! A matcher for the regular expressions that tokenizers cut text with, many times faster than a general engine.
//!
//! In:    an expression: alternatives of classes and literals with greedy repeats, `(?!x)`, and a group at the end.
//! Out:   [`Pattern`], whose matches are those of the tokenizers crate's engine: first alternative first, greedy.
//! Never: accepts what it does not know (anchors, look-behind, lazy and possessive repeats, inner groups).

use super::classes::{self, Class, ClassTable};

/// Classes share a 64-bit word with the alternatives that may begin with a character.
const CLASSES_MAX: usize = 32;
const BRANCHES_MAX: usize = 32;

/// An expression ready to match.
pub(super) struct Pattern {
    branches: Vec<Vec<Item>>,
    table: ClassTable,
}

/// One step of an alternative.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    /// At least `min` and at most `max` characters of class number `class`.
    Repeat { class: u32, min: usize, max: usize },
    /// The next character is not of the class, or there is none.
    NotAhead { class: u32 },
    /// The first alternative that matches; stands last.
    Group { branches: Vec<Vec<Item>>, optional: bool },
}

impl Pattern {
    /// Parses `expression`; `None` if it holds anything that is not known here.
    pub(super) fn new(expression: &str) -> Option<Pattern> {
        let mut parser = Parser { rest: expression, spellings: Vec::new() };
        let branches = parser.branches(Case::Exact)?;
        let classes: Option<Vec<Class>> = parser.spellings.iter().map(|spelling| spelling.class()).collect();
        (parser.rest.is_empty()).then_some(())?;
        Pattern::from_branches(branches, classes?)
    }

    /// Numerals as Rust's standard library has them, one by one or in runs: the crate's `Digits`.
    pub(super) fn digits(max: usize) -> Option<Pattern> {
        let branches = vec![vec![Item::Repeat { class: 0, min: 1, max }]];
        Pattern::from_branches(branches, vec![classes::class_of(char::is_numeric)])
    }

    fn from_branches(branches: Vec<Vec<Item>>, classes: Vec<Class>) -> Option<Pattern> {
        if classes.len() > CLASSES_MAX
            || branches.len() > BRANCHES_MAX
            || branches.iter().any(|items| may_be_empty(items))
        {
            return None;
        }
        let mut bits: Vec<(u32, Class)> = (0..).zip(classes.iter().cloned()).collect();
        for (branch, items) in (CLASSES_MAX as u32..).zip(&branches) {
            first_classes(items).into_iter().for_each(|class| bits.push((branch, classes[class as usize].clone())));
        }
        Some(Pattern { branches, table: ClassTable::new(&bits) })
    }

    /// End of the match that starts at byte `at` of `text`.
    #[inline]
    pub(super) fn end_of_match(&self, text: &str, at: usize) -> Option<usize> {
        let (bits, _) = self.table.at(text, at)?;
        let mut candidates = bits >> CLASSES_MAX;
        while candidates != 0 {
            let branch = candidates.trailing_zeros() as usize;
            if let Some(end) = self.sequence(&self.branches[branch], text, at) {
                return Some(end);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Length of the character at byte `at`, which is inside `text`.
    pub(super) fn step(&self, text: &str, at: usize) -> usize {
        self.table.at(text, at).map_or(1, |(_, length)| length)
    }

    fn sequence(&self, items: &[Item], text: &str, at: usize) -> Option<usize> {
        let Some((item, rest)) = items.split_first() else { return Some(at) };
        match item {
            Item::Repeat { class, min, max } => self.repeat((*class, *min, *max), rest, text, at),
            Item::NotAhead { class } => match self.table.at(text, at) {
                Some((bits, _)) if bits >> class & 1 == 1 => None,
                _ => self.sequence(rest, text, at),
            },
            Item::Group { branches, optional } => {
                branches.iter().find_map(|items| self.sequence(items, text, at)).or(optional.then_some(at))
            }
        }
    }

    /// As many characters as there are, then fewer until the rest matches.
    #[inline]
    fn repeat(&self, (class, min, max): (u32, usize, usize), rest: &[Item], text: &str, at: usize) -> Option<usize> {
        let (mut end, mut count) = (at, 0);
        while count < max {
            match self.table.at(text, end) {
                Some((bits, length)) if bits >> class & 1 == 1 => end += length,
                _ => break,
            }
            count += 1;
        }
        loop {
            if count < min {
                return None;
            }
            if rest.is_empty() {
                return Some(end);
            }
            if let Some(end) = self.sequence(rest, text, end) {
                return Some(end);
            }
            if count == 0 {
                return None;
            }
            count -= 1;
            end = text[..end].char_indices().next_back().map_or(at, |(start, _)| start);
        }
    }
}

/// Whether the items can match nothing, which the search for matches does not expect.
fn may_be_empty(items: &[Item]) -> bool {
    items.iter().all(|item| match item {
        Item::Repeat { min, .. } => *min == 0,
        Item::NotAhead { .. } => true,
        Item::Group { branches, optional } => *optional || branches.iter().any(|items| may_be_empty(items)),
    })
}

/// Classes that a match can begin with.
fn first_classes(items: &[Item]) -> Vec<u32> {
    let mut first = Vec::new();
    for item in items {
        match item {
            Item::Repeat { class, .. } => first.push(*class),
            Item::NotAhead { .. } => {}
            Item::Group { branches, .. } => first.extend(branches.iter().flat_map(|items| first_classes(items))),
        }
        if !may_be_empty(std::slice::from_ref(item)) {
            break;
        }
    }
    first
}

/// How literals are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Exact,
    Ignored,
}

/// A class as written, or one character.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spelling {
    Class(String),
    One(char, Case),
}

impl Spelling {
    fn class(&self) -> Option<Class> {
        match self {
            Spelling::Class(spelling) => classes::class(spelling),
            Spelling::One(one, Case::Exact) => Some([*one as u32..=*one as u32].into()),
            // Unicode's simple case folding puts the long s with s, and the Kelvin sign with k.
            Spelling::One(one, Case::Ignored) => Some(classes::class_of(|other| {
                other.eq_ignore_ascii_case(one)
                    || matches!((one.to_ascii_lowercase(), other), ('s', '\u{17f}') | ('k', '\u{212a}'))
            })),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    spellings: Vec<Spelling>,
}

impl Parser<'_> {
    fn eat(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Alternatives up to the end or a closing bracket.
    fn branches(&mut self, case: Case) -> Option<Vec<Vec<Item>>> {
        let mut branches = vec![Vec::new()];
        while !self.rest.is_empty() && !self.rest.starts_with(')') {
            if self.eat("|") {
                branches.push(Vec::new());
                continue;
            }
            let items = branches.last_mut()?;
            if matches!(items.last(), Some(Item::Group { .. })) {
                return None;
            }
            let item = self.item(case)?;
            items.push(item);
        }
        Some(branches)
    }

    fn item(&mut self, case: Case) -> Option<Item> {
        if self.eat("(?!") {
            let class = self.class(Case::Exact)?;
            return self.eat(")").then_some(Item::NotAhead { class });
        }
        let inner = [("(?i:", Case::Ignored), ("(?:", case)].into_iter().find(|(open, _)| self.rest.starts_with(open));
        if let Some((open, case)) = inner {
            self.eat(open);
            let branches = self.branches(case)?;
            self.eat(")").then_some(())?;
            let optional = self.eat("?");
            return (!self.rest.starts_with(['*', '+', '?', '{'])).then_some(Item::Group { branches, optional });
        }
        let class = self.class(case)?;
        let (min, max) = self.repeats()?;
        Some(Item::Repeat { class, min, max })
    }

    fn repeats(&mut self) -> Option<(usize, usize)> {
        let bounds = if self.eat("?") {
            (0, 1)
        } else if self.eat("*") {
            (0, usize::MAX)
        } else if self.eat("+") {
            (1, usize::MAX)
        } else if self.eat("{") {
            let (inside, rest) = self.rest.split_once('}')?;
            self.rest = rest;
            match inside.split_once(',') {
                None => (inside.parse().ok()?, inside.parse().ok()?),
                Some((min, "")) => (min.parse().ok()?, usize::MAX),
                Some((min, max)) => (min.parse().ok()?, max.parse().ok()?),
            }
        } else {
            return Some((1, 1));
        };
        (bounds.0 <= bounds.1 && bounds.1 > 0 && !self.rest.starts_with(['?', '+', '*', '{'])).then_some(bounds)
    }

    /// Number of the class that the next characters spell.
    fn class(&mut self, case: Case) -> Option<u32> {
        let first = self.rest.chars().next()?;
        let length = match first {
            '[' => bracket_length(self.rest)?,
            '\\' => escape_length(self.rest)?,
            '.' | '^' | '$' | '*' | '+' | '?' | '{' | '(' | ')' | '|' => return None,
            _ => first.len_utf8(),
        };
        let (spelled, rest) = self.rest.split_at(length);
        self.rest = rest;
        let spelling = match (first, case) {
            ('[' | '\\', Case::Exact) => Spelling::Class(spelled.to_owned()),
            ('[' | '\\', Case::Ignored) => return None,
            (_, Case::Ignored) if !first.is_ascii() => return None,
            _ => Spelling::One(first, case),
        };
        let known = self.spellings.iter().position(|other| *other == spelling).unwrap_or_else(|| {
            self.spellings.push(spelling);
            self.spellings.len() - 1
        });
        Some(known as u32)
    }
}

/// Bytes of `[...]`; `None` for nested sets and intersections.
fn bracket_length(text: &str) -> Option<usize> {
    let mut at = if text.starts_with("[^") { 2 } else { 1 };
    loop {
        match text[at..].chars().next()? {
            '\\' => at += escape_length(&text[at..])?,
            ']' => return Some(at + 1),
            '[' => return None,
            '&' if text[at..].starts_with("&&") => return None,
            other => at += other.len_utf8(),
        }
    }
}

/// Bytes of an escape that is one character or one class. Categories of unassigned characters are refused: the sample
/// of [`classes`] does not tell them apart.
fn escape_length(text: &str) -> Option<usize> {
    let escaped = text.chars().nth(1)?;
    match escaped {
        'p' | 'P' => {
            let end = text.find('}')?;
            let name = text[..end].get(3..)?;
            (text[2..].starts_with('{') && !name.starts_with(['C', 'c', '^'])).then_some(end + 1)
        }
        's' | 'S' | 'd' | 'r' | 'n' | 't' => Some(2),
        other if other.is_ascii_punctuation() => Some(2),
        _ => None,
    }
}
