//! The letters that stand for bytes in byte-level vocabularies.
//!
//! In:    nothing.
//! Out:   [`letters`], [`bytes`].
//! Never: fails on letters that stand for none.
//!
//! Source: `bytes_to_unicode` of GPT-2's `encoder.py`: printable bytes stand for themselves, the others are counted from
//! U+0100.

use std::sync::OnceLock;

/// The letter of every byte.
pub(crate) fn letters() -> &'static [char; 256] {
    static LETTERS: OnceLock<[char; 256]> = OnceLock::new();
    LETTERS.get_or_init(|| {
        let mut other = '\u{100}'..='\u{143}';
        std::array::from_fn(|byte| match byte as u8 {
            byte @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(byte),
            byte => other.next().unwrap_or(char::from(byte)),
        })
    })
}

/// The bytes that a token of such letters stands for; `None` if one letter stands for none.
pub(crate) fn bytes(token: &str) -> Option<Vec<u8>> {
    let byte = |letter: char| match letter {
        '!'..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' => u8::try_from(letter).ok(),
        other => letters().iter().position(|known| *known == other).and_then(|byte| u8::try_from(byte).ok()),
    };
    token.chars().map(byte).collect()
}
