//! Cuts a document into pieces that a model can read at once.
//!
//! In:    a [`Document`] and the wanted sizes in characters.
//! Out:   [`Chunk`]s with their provenance; together they hold every character of the document except white space.
//! Never: passes the hard bound; cuts a word or a fenced code block that fits the bound.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::documents::{Document, Marks};
use super::job::Chunking;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Path of the document.
    pub document: String,
    /// Its title.
    pub title: String,
    /// The headings that all of the chunk stands under, outermost first.
    pub headings: Vec<String>,
    /// First and one past the last character (Unicode scalar values) in the document's normalised text.
    pub characters: [u64; 2],
    /// First and last page, from 1, where the document has pages.
    pub pages: Option<[u32; 2]>,
    /// The text.
    pub text: String,
}

impl Chunk {
    /// `guide.md, characters 0 to 2950`.
    pub fn place(&self) -> String {
        format!("{}, characters {} to {}", self.document, self.characters[0], self.characters[1])
    }
}

/// A paragraph, heading or code block; byte offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    range: Range<usize>,
    kind: BlockKind,
    /// The headings above it, itself included if it is one.
    headings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Heading,
    Code,
    Paragraph,
}

/// Cuts `document`.
pub(crate) fn cut(document: &Document, sizes: Chunking) -> Vec<Chunk> {
    let text = &document.text;
    // What is repeated from the chunk before counts against the bound.
    let fresh_max = (sizes.bound - sizes.overlap).max(1);
    let target = sizes.target.min(fresh_max);
    let mut groups: Vec<Vec<Block>> = Vec::new();
    let mut characters = 0;
    for block in blocks(text, document.marked) {
        for piece in pieces(text, block, target, fresh_max) {
            let length = text[piece.range.clone()].chars().count();
            let gap = groups.last().and_then(|group| group.last()).map_or(0, |last| piece.range.start - last.range.end);
            let begins_section = piece.kind == BlockKind::Heading && characters >= target / 4;
            if groups.is_empty() || begins_section || characters + gap + length > target {
                let headings = groups.last_mut().map(take_trailing_headings).unwrap_or_default();
                groups.retain(|group| !group.is_empty());
                characters = headings.iter().map(|block| text[block.range.clone()].chars().count() + 2).sum();
                groups.push(headings);
                if characters + length > fresh_max && !groups[groups.len() - 1].is_empty() {
                    groups.push(Vec::new());
                    characters = 0;
                }
            } else {
                characters += gap;
            }
            characters += length;
            let last = groups.len() - 1;
            groups[last].push(piece);
        }
    }
    let mut counter = Counter::default();
    let mut previous: Option<Range<usize>> = None;
    let mut chunks = Vec::with_capacity(groups.len());
    for group in &groups {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let fresh = first.range.start..last.range.end;
        let begin =
            previous.as_ref().map_or(fresh.start, |before| overlap_start(text, before, fresh.start, sizes.overlap));
        chunks.push(chunk(document, &mut counter, begin..fresh.end, group));
        previous = Some(fresh);
    }
    chunks
}

/// A heading belongs to what follows it.
fn take_trailing_headings(group: &mut Vec<Block>) -> Vec<Block> {
    let keep = group.iter().rposition(|block| block.kind != BlockKind::Heading).map_or(0, |last| last + 1);
    group.split_off(keep)
}

fn chunk(document: &Document, counter: &mut Counter, range: Range<usize>, group: &[Block]) -> Chunk {
    let page = |offset: usize| document.pages.partition_point(|&begin| begin <= offset).max(1) as u32;
    let pages = (!document.pages.is_empty()).then(|| [page(range.start), page(range.end.saturating_sub(1))]);
    let content = group.iter().filter(|block| block.kind != BlockKind::Heading);
    let mut paths = content.map(|block| &block.headings);
    let first = paths.next().or(group.last().map(|block| &block.headings)).cloned().unwrap_or_default();
    let headings = paths.fold(first, |common, path| {
        common.iter().zip(path).take_while(|(a, b)| a == b).map(|(heading, _)| heading.clone()).collect()
    });
    Chunk {
        document: document.path.display().to_string(),
        title: document.title.clone(),
        headings,
        characters: [counter.at(&document.text, range.start), counter.at(&document.text, range.end)],
        pages,
        text: document.text[range].to_string(),
    }
}

/// Characters before a byte offset, remembering the last answer.
#[derive(Default)]
struct Counter {
    offset: usize,
    characters: u64,
}

impl Counter {
    fn at(&mut self, text: &str, offset: usize) -> u64 {
        if offset >= self.offset {
            self.characters += text[self.offset..offset].chars().count() as u64;
        } else {
            self.characters -= text[offset..self.offset].chars().count() as u64;
        }
        self.offset = offset;
        self.characters
    }
}

/// Where the repeated end of `before` begins: at a word, at most `overlap` characters before `start`, never inside a code block.
fn overlap_start(text: &str, before: &Range<usize>, start: usize, overlap: usize) -> usize {
    let tail = &text[before.start..start];
    let Some((earliest, _)) = tail.char_indices().rev().nth(overlap.wrapping_sub(1)).filter(|_| overlap > 0) else {
        return start;
    };
    if tail.contains("```") || tail.contains("~~~") {
        return start;
    }
    let from = before.start + earliest;
    let mut after_space = text[..from].ends_with(char::is_whitespace);
    for (at, c) in text[from..start].char_indices() {
        if after_space && !c.is_whitespace() {
            return from + at;
        }
        after_space = c.is_whitespace();
    }
    start
}

fn blocks(text: &str, marked: Marks) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut fence: Option<&str> = None;
    let mut offset = 0;
    let mut open = false;
    for line in text.split_inclusive('\n') {
        let range = offset..offset + line.trim_end().len();
        offset += line.len();
        let mark = (marked == Marks::Markdown).then(|| fence_mark(line)).flatten();
        let inside = fence.is_some();
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(opened), Some(mark)) if mark.starts_with(opened) && line.trim() == mark => fence = None,
            _ => {}
        }
        if inside || mark.is_some() {
            match blocks.last_mut().filter(|_| inside) {
                Some(block) => block.range.end = range.end.max(block.range.end),
                None => blocks.push(Block { range, kind: BlockKind::Code, headings: names(&path) }),
            }
            open = false;
        } else if let Some((level, name)) = heading(line).filter(|_| marked == Marks::Markdown) {
            path.retain(|(above, _)| *above < level);
            path.push((level, name.to_string()));
            blocks.push(Block { range, kind: BlockKind::Heading, headings: names(&path) });
            open = false;
        } else if range.is_empty() {
            open = false;
        } else if let Some(block) = blocks.last_mut().filter(|_| open) {
            block.range.end = range.end;
        } else {
            blocks.push(Block { range, kind: BlockKind::Paragraph, headings: names(&path) });
            open = true;
        }
    }
    blocks
}

fn names(path: &[(usize, String)]) -> Vec<String> {
    path.iter().map(|(_, name)| name.clone()).collect()
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|&byte| byte == b'#').count();
    let name = line[level..].strip_prefix(' ')?.trim().trim_end_matches('#').trim_end();
    ((1..=6).contains(&level) && !name.is_empty()).then_some((level, name))
}

/// The run of three or more backticks or tildes that a line begins with.
fn fence_mark(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let run = &line[..line.len() - line.trim_start_matches(mark).len()];
    (run.len() >= 3).then_some(run)
}

/// `block` whole if it fits `fresh_max`, else in pieces of at most `target` characters.
fn pieces(text: &str, block: Block, target: usize, fresh_max: usize) -> Vec<Block> {
    if text[block.range.clone()].chars().nth(fresh_max).is_none() {
        return vec![block];
    }
    let mut pieces = Vec::new();
    let mut rest = block.range.clone();
    while !rest.is_empty() {
        let end = rest.start + piece_length(&text[rest.clone()], target, block.kind);
        let trimmed = rest.start + text[rest.start..end].trim_end().len();
        if trimmed > rest.start {
            pieces.push(Block { range: rest.start..trimmed, kind: block.kind, headings: block.headings.clone() });
        }
        rest.start = end + (text[end..rest.end].len() - text[end..rest.end].trim_start_matches([' ', '\n']).len());
    }
    pieces
}

/// Bytes of the next piece: up to the best place to cut in the second half of `target` characters.
fn piece_length(text: &str, target: usize, kind: BlockKind) -> usize {
    let Some((most, _)) = text.char_indices().nth(target) else { return text.len() };
    let half = text.char_indices().nth(target / 2).map_or(0, |(at, _)| at);
    let window = &text[half..most];
    let line = window.rfind('\n').map(|at| half + at + 1);
    let sentence = window
        .char_indices()
        .zip(window.chars().skip(1))
        .filter(|((_, c), next)| {
            matches!(c, '.' | '!' | '?') && next.is_whitespace() || matches!(c, '。' | '！' | '？')
        })
        .map(|((at, c), _)| half + at + c.len_utf8())
        .last();
    let word = text[..most].char_indices().rev().find(|(at, c)| *at > 0 && c.is_whitespace()).map(|(at, _)| at);
    let best = if kind == BlockKind::Code { line.or(word) } else { sentence.or(line).or(word) };
    best.unwrap_or(most)
}
