//! The fast path: the tokenizers crate's ids and offsets without its string bookkeeping, word by word from memory.
//!
//! In:    [`Rules`] and the crate's tokenizer, which still merges every word that is met for the first time.
//! Out:   [`Fast`], whose answers equal the crate's: checked on a probe text before the first use.
//! Never: answers for text that it would have to normalise: the caller takes the crate then.

use std::ops::Range;

use tokenizers::Model;
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::Encoded;
use super::added::{Added, AddedToken};
use super::letters::letters;
use super::pattern::Pattern;
use super::probe;
use super::rules::{Cut, Rules, Step, Trim};
use super::words::{Piece, Slots, Standing, Words};

/// Space as SentencePiece spells it.
const SPACE: char = '▁';

/// A tokenizer's fast path.
pub(super) struct Fast {
    added: [Added; 2],
    cutter: Cutter,
    compose: bool,
    trim: Option<Trim>,
    slots: Slots,
}

enum Cutter {
    Bytes(Vec<Pattern>),
    Spaces { prefix: bool },
}

impl Fast {
    /// Gives the memory of known words back.
    pub(super) fn forget_words(&self) {
        self.slots.forget();
    }

    /// Builds and checks it; the error says why the crate must do all the work.
    pub(super) fn new(rules: &Rules, inner: &tokenizers::Tokenizer) -> Result<Fast, String> {
        let cutter = match &rules.cut {
            Cut::Bytes(steps) => Cutter::Bytes(steps.iter().map(pattern).collect::<Result<_, String>>()?),
            Cut::Spaces { prefix } => Cutter::Spaces { prefix: *prefix },
        };
        let [plain, normalized] = &rules.added;
        let changes = |token: &&AddedToken| is_nfc_quick(token.content.chars()) != IsNormalized::Yes;
        if let Some(token) = normalized.iter().find(changes).filter(|_| rules.compose) {
            return Err(format!("added token {:?} is changed by normalisation", token.content));
        }
        let added = [known(plain, inner)?, known(normalized, inner)?];
        let fast = Fast { added, cutter, compose: rules.compose, trim: rules.trim, slots: Slots::new() };
        let added = rules.added.iter().flatten().map(|token| token.content.as_str());
        match probe::texts(added).iter().find(|text| !fast.agrees(inner, text)) {
            None => Ok(fast),
            Some(text) => {
                let beginning: String = text.chars().take(40).collect();
                Err(format!("the fast path differs on the probe text {beginning:?}"))
            }
        }
    }

    fn agrees(&self, inner: &tokenizers::Tokenizer, text: &str) -> bool {
        let mut encoded = Encoded::default();
        if !self.encode_into(inner, text, &mut encoded) {
            return true;
        }
        let Ok(slow) = inner.encode(text, false) else { return false };
        let offsets = slow.get_offsets().iter().map(|&(start, end)| start..end);
        slow.get_ids() == encoded.ids && offsets.eq(encoded.offsets)
    }

    /// Replaces `encoded`; false, and anything in `encoded`, if this text is for the crate.
    pub(super) fn encode_into(&self, inner: &tokenizers::Tokenizer, text: &str, encoded: &mut Encoded) -> bool {
        encoded.ids.clear();
        encoded.offsets.clear();
        let composed = || !self.compose || text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes;
        if u32::try_from(text.len()).is_err() || !composed() {
            return false;
        }
        self.slots.with(|words| {
            let mut run = Run { fast: self, inner, text, words, encoded, failed: false };
            self.added[0].find(text, |start, end, id| match id {
                Some(id) => run.added(start, end, id),
                None => run.plain(start, end),
            });
            !run.failed
        })
    }
}

fn pattern(step: &Step) -> Result<Pattern, String> {
    let made = match step {
        Step::Expression(expression) => Pattern::new(expression),
        Step::Digits(max) => Pattern::digits(*max),
    };
    made.ok_or_else(|| format!("expression {step:?}"))
}

/// With the ids that the crate gives them.
fn known(tokens: &[AddedToken], inner: &tokenizers::Tokenizer) -> Result<Added, String> {
    let token = |token: &AddedToken| match inner.token_to_id(&token.content) {
        Some(id) => Ok(AddedToken { id, ..token.clone() }),
        None => Err(format!("added token {:?} has no id", token.content)),
    };
    tokens.iter().map(token).collect::<Result<_, _>>().map(Added::new)
}

/// One text on its way.
struct Run<'a> {
    fast: &'a Fast,
    inner: &'a tokenizers::Tokenizer,
    text: &'a str,
    words: &'a mut Words,
    encoded: &'a mut Encoded,
    failed: bool,
}

impl Run<'_> {
    fn added(&mut self, start: usize, end: usize, id: u32) {
        let first = self.encoded.ids.is_empty();
        let range = trimmed(self.fast.trim, &self.text[start..end], start..end, first || start == 0);
        self.encoded.ids.push(id);
        self.encoded.offsets.push(range);
    }

    /// Text without tokens that are found before normalisation.
    fn plain(&mut self, start: usize, end: usize) {
        let fast = self.fast;
        if fast.added[1].is_empty() {
            return self.cut_all(start, end);
        }
        let text = &self.text[start..end];
        fast.added[1].find(text, |from, to, id| match id {
            Some(id) => self.added(start + from, start + to, id),
            None => self.cut_all(start + from, start + to),
        });
    }

    fn cut_all(&mut self, start: usize, end: usize) {
        let fast = self.fast;
        match &fast.cutter {
            Cutter::Bytes(patterns) => self.cut(patterns, start, end),
            Cutter::Spaces { prefix } => self.cut_at_spaces(start, end, *prefix),
        }
    }

    /// Words are matches of the first pattern and what lies between, cut again by the next.
    fn cut(&mut self, patterns: &[Pattern], start: usize, end: usize) {
        let Some((pattern, rest)) = patterns.split_first() else { return self.word(start, end, Standing::Inner) };
        let text = &self.text[..end];
        let (mut at, mut between) = (start, start);
        while at < end {
            match pattern.end_of_match(text, at) {
                Some(to) => {
                    if between < at {
                        self.cut(rest, between, at);
                    }
                    self.cut(rest, at, to);
                    (at, between) = (to, to);
                }
                None => at += pattern.step(text, at),
            }
        }
        if between < end {
            self.cut(rest, between, end);
        }
    }

    fn cut_at_spaces(&mut self, start: usize, end: usize, prefix: bool) {
        let mut standing = if prefix { Standing::Prefixed } else { Standing::Inner };
        let (mut from, mut after_space) = (start, true);
        for (at, character) in self.text[start..end].char_indices() {
            let space = character == ' ' || character == SPACE;
            if space && !after_space {
                self.word(from, start + at, standing);
                (from, standing) = (start + at, Standing::Inner);
            }
            after_space = space;
        }
        self.word(from, end, standing);
    }

    #[inline]
    fn word(&mut self, start: usize, end: usize, standing: Standing) {
        // The crate trims the first token by a rule of its own.
        if self.fast.trim.is_some() && self.encoded.ids.is_empty() {
            return self.new_word(start, end, standing);
        }
        let word = &self.text.as_bytes()[start..end];
        let Encoded { ids, offsets } = &mut *self.encoded;
        if !self.words.append(word, standing, start, ids, offsets) {
            self.new_word(start, end, standing);
        }
    }

    /// Lets the crate merge the word, and remembers the answer unless it is the first word's.
    #[cold]
    fn new_word(&mut self, start: usize, end: usize, standing: Standing) {
        let word = &self.text[start..end];
        let (spelled, places) = match self.fast.cutter {
            Cutter::Bytes(_) => in_letters(word),
            Cutter::Spaces { .. } => with_spaces(word, standing),
        };
        let Ok(tokens) = self.inner.get_model().tokenize(&spelled) else {
            self.failed = true;
            return;
        };
        let first = self.encoded.ids.is_empty();
        let mut pieces = Vec::with_capacity(tokens.len());
        for token in &tokens {
            let (from, to) = token.offsets;
            let (Some(from), Some(to)) = (places.get(from), to.checked_sub(1).and_then(|last| places.get(last))) else {
                self.failed = true;
                return;
            };
            let first = first && pieces.is_empty();
            let range = trimmed(self.fast.trim, &token.value, from.start as usize..to.end as usize, first);
            pieces.push(Piece { id: token.id, start: range.start as u32, end: range.end as u32 });
        }
        self.encoded.ids.extend(pieces.iter().map(|piece| piece.id));
        let ranges = pieces.iter().map(|piece| start + piece.start as usize..start + piece.end as usize);
        self.encoded.offsets.extend(ranges);
        if !(first && self.fast.trim.is_some()) {
            self.words.insert(word.as_bytes(), standing, &pieces);
        }
    }
}

/// A letter for each byte, and for each byte of the letters the bytes of the character in the word.
fn in_letters(word: &str) -> (String, Vec<Range<u32>>) {
    let mut spelled = String::with_capacity(word.len() * 2);
    let mut places = Vec::with_capacity(word.len() * 2);
    for (at, character) in word.char_indices() {
        let end = at + character.len_utf8();
        for byte in &word.as_bytes()[at..end] {
            let letter = letters()[usize::from(*byte)];
            spelled.push(letter);
            places.extend(std::iter::repeat_n(at as u32..end as u32, letter.len_utf8()));
        }
    }
    (spelled, places)
}

/// Spaces replaced, and for each byte of the result the bytes of the character in the word.
fn with_spaces(word: &str, standing: Standing) -> (String, Vec<Range<u32>>) {
    let mut spelled = String::with_capacity(word.len() + 2 * SPACE.len_utf8());
    let mut places = Vec::with_capacity(spelled.capacity());
    if standing == Standing::Prefixed {
        // The crate lets the space in front stand for the first character too.
        let first = word.chars().next().map_or(0, char::len_utf8) as u32;
        spelled.push(SPACE);
        places.extend(std::iter::repeat_n(0..first, SPACE.len_utf8()));
    }
    for (at, character) in word.char_indices() {
        let end = at + character.len_utf8();
        let character = if character == ' ' { SPACE } else { character };
        spelled.push(character);
        places.extend(std::iter::repeat_n(at as u32..end as u32, character.len_utf8()));
    }
    (spelled, places)
}

/// `process_offsets` of the crate's byte-level post-processor: without the spaces at both ends of the token.
fn trimmed(trim: Option<Trim>, token: &str, range: Range<usize>, first: bool) -> Range<usize> {
    let Some(trim) = trim else { return range };
    let is_space = |letter: &char| *letter == 'Ġ' || letter.is_whitespace();
    let mut leading = token.chars().take_while(is_space).count();
    let trailing = token.chars().rev().take_while(is_space).count();
    if first && trim.keep_first_space && leading == 1 {
        leading = 0;
    }
    let start = (range.start + leading).min(range.end);
    let end = if range.end >= trailing { (range.end - trailing).max(start) } else { range.end };
    start..end
}
