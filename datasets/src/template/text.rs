//! What Python's `str` does and Rust's does otherwise: white space, line ends, case, positions in characters.
//!
//! In:    text.
//! Out:   text, or positions.
//! Never: counts in bytes.

use std::sync::OnceLock;

use regex_automata::meta::Regex;

/// Python's white space: Unicode's, and the four separators of ASCII.
pub(crate) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// `\r\n` and `\r` become `\n`.
pub(crate) fn unix_lines(text: &str) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.to_owned() }
}

/// Lines as `str.splitlines` finds them, each with its end.
pub(crate) fn lines(text: &str) -> Vec<(&str, &str)> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let ends = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
        let at = rest.find(ends).unwrap_or(rest.len());
        let end = &rest[at..];
        let length = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(0, char::len_utf8) };
        lines.push((&rest[..at], &end[..length]));
        rest = &end[length..];
    }
    lines
}

/// Upper case of a word's first letter.
pub(crate) fn title_letter(letter: char) -> String {
    match letter {
        'Ǆ' | 'ǅ' | 'ǆ' => "ǅ".to_owned(),
        'Ǉ' | 'ǈ' | 'ǉ' => "ǈ".to_owned(),
        'Ǌ' | 'ǋ' | 'ǌ' => "ǋ".to_owned(),
        'Ǳ' | 'ǲ' | 'ǳ' => "ǲ".to_owned(),
        letter => {
            let mut upper = letter.to_uppercase();
            upper.next().into_iter().chain(upper.flat_map(char::to_lowercase)).collect()
        }
    }
}

/// `str.capitalize`.
pub(crate) fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| title_letter(first) + &letters.as_str().to_lowercase())
}

/// `str.title`: a letter after what has no case begins a word.
pub(crate) fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if inside {
            out.extend(letter.to_lowercase());
        } else {
            out.push_str(&title_letter(letter));
        }
        inside = is_cased(letter);
    }
    out
}

/// Whether a letter has upper or lower case.
pub(crate) fn is_cased(letter: char) -> bool {
    letter.is_lowercase() || letter.is_uppercase() || matches!(letter, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ')
}

/// `str.isdecimal` of one letter.
pub(crate) fn is_decimal(letter: char) -> bool {
    static DECIMAL: OnceLock<Option<Regex>> = OnceLock::new();
    let pattern = DECIMAL.get_or_init(|| Regex::new(r"\A\p{Nd}\z").ok());
    letter.is_ascii_digit()
        || (letter.is_numeric()
            && pattern.as_ref().is_some_and(|pattern| pattern.is_match(letter.encode_utf8(&mut [0; 4]) as &str)))
}

/// `str.isdigit` of one letter: decimals, and digits that are raised, lowered or circled.
pub(crate) fn is_digit(letter: char) -> bool {
    let special = matches!(letter, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' | '⑴'..='⑼' | '⒈'..='⒐'
        | '⓪' | '⓵'..='⓽' | '⓿' | '❶'..='❾' | '➀'..='➈' | '➊'..='➒' | '፩'..='፱' | '᧚' | '🄀'..='🄊');
    special || is_decimal(letter)
}

/// Position in characters of the byte position `at`.
pub(crate) fn characters_before(text: &str, at: usize) -> i64 {
    text[..at].chars().count() as i64
}

/// The part of `text` between two positions in characters, as Python's `text[start:end]`, and where it begins in bytes;
/// `None` where `start` lies behind the text.
pub(crate) fn window(text: &str, start: i64, end: Option<i64>) -> Option<(usize, &str)> {
    if start == 0 && end.is_none() {
        return Some((0, text));
    }
    let count = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at + count).max(0) } else { at };
    let (start, end) = (place(start), place(end.unwrap_or(count)).min(count));
    if start > count || start > end {
        return None;
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Some((byte(start), &text[byte(start)..byte(end)]))
}

/// The places that Python's slice `[start:stop:step]` takes of `count`; `step` is not 0.
pub(crate) fn slice(start: Option<i64>, stop: Option<i64>, step: i64, count: usize) -> Vec<usize> {
    let count = count as i64;
    let (low, high) = if step > 0 { (0, count) } else { (-1, count - 1) };
    let place = |at: i64| if at < 0 { at.saturating_add(count).max(low) } else { at.min(high) };
    let mut at = start.map_or(if step > 0 { low } else { high }, place);
    let stop = stop.map_or(if step > 0 { high } else { low }, place);
    let mut places = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        places.push(at as usize);
        at = at.saturating_add(step);
    }
    places
}
